//! A client that follows the rules never misses an event without being told.
