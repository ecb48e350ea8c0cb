//! Requests under way.

use std::fmt;

use crate::memory::Place;
use crate::redis::Lease;

/// A place among the requests under way of one scope and subject. Keep it until the response body is
/// finished; dropping it, also by a panic or a client that left, gives the place back.
#[must_use = "dropping it gives the place back"]
pub struct Permit {
    // Dropped in this order: nobody here is let in before Redis can be told that the place is free.
    _lease: Option<Lease>,
    _place: Place,
}

impl Permit {
    pub(crate) fn local(place: Place) -> Self {
        Self { _lease: None, _place: place }
    }

    pub(crate) fn shared(place: Place, lease: Lease) -> Self {
        Self { _lease: Some(lease), _place: place }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}
