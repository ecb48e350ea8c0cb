//! Who may do what: human roles, organisation roles and the guards that check them.

use crate::error::{Error, Result};
use crate::identity::Identity;

macro_rules! wire_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:tt),+ $(,)? }) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
        $(#[$meta])*
        pub enum $name {
            $($(#[$vmeta])* #[serde(rename = $text)] $variant),+
        }

        impl $name {
            /// Every value, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Wire form.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// Reads the wire form; anything else is `None`.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use wire_enum;

wire_enum! {
    /// What a person is in the company. The order is the order of seniority, juniors first.
    HumanRole {
        /// May read.
        Observer = "observer",
        /// May read and approve.
        BoardMember = "board_member",
        /// May read and write.
        PairProgrammer = "pair_programmer",
        /// May read, write and approve.
        Manager = "manager",
        /// May do everything a person may; at most one exists.
        Ceo = "ceo",
        /// The internal user of the command line; passes no guard but `SystemOrWrite`.
        System = "system",
    }
}

wire_enum! {
    /// What a person may change in the organisation; a user holds a set of these.
    OrgRole {
        /// Every organisation change.
        Owner = "owner",
        /// Changes inside the scoped departments.
        DepartmentAdmin = "department_admin",
        /// Every organisation change.
        Editor = "editor",
        /// No organisation change.
        Viewer = "viewer",
    }
}

impl HumanRole {
    /// CEO, manager, pair programmer.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Ceo | Self::Manager | Self::PairProgrammer)
    }

    /// Everyone but the system user.
    pub const fn reads(self) -> bool {
        !matches!(self, Self::System)
    }

    /// CEO, manager, board member.
    pub const fn approves(self) -> bool {
        matches!(self, Self::Ceo | Self::Manager | Self::BoardMember)
    }
}

/// The rule a route demands of its caller. Every route declares one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Anybody, and no identity is looked for.
    Public,
    /// Any identity, whatever its role.
    Identified,
    /// The read set.
    Read,
    /// The write set.
    Write,
    /// The approval set.
    Approval,
    /// The CEO.
    Ceo,
    /// CEO or manager.
    CeoOrManager,
    /// The write set and the system user.
    SystemOrWrite,
    /// CEO and the system user.
    CeoOrSystem,
    /// An organisation change. With a parameter name, department admins pass for their departments;
    /// without one the change is company-wide and they do not.
    OrgMutation(Option<&'static str>),
}

impl Guard {
    /// Name in logs and in the table of routes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Identified => "identified",
            Self::Read => "read",
            Self::Write => "write",
            Self::Approval => "approval",
            Self::Ceo => "ceo",
            Self::CeoOrManager => "ceo_or_manager",
            Self::SystemOrWrite => "system_or_write",
            Self::CeoOrSystem => "ceo_or_system",
            Self::OrgMutation(_) => "org_mutation",
        }
    }

    /// Lets the caller pass or says why not.
    ///
    /// `department` is the value of the path parameter named by [`Guard::OrgMutation`].
    ///
    /// # Errors
    /// 403/1001 with the guard's own text; a missing identity is refused the same way, except for
    /// [`Guard::Public`].
    pub fn check(self, caller: Option<&Identity>, department: Option<&str>) -> Result<()> {
        let refused = match self {
            Self::Read => "Read access denied",
            Self::Write => "Write access denied",
            Self::OrgMutation(_) if caller.is_none_or(|c| c.org_roles.is_empty()) => "Write access denied",
            _ => "Access denied",
        };
        let passes = match (self, caller) {
            (Self::Public, _) => true,
            (_, None) => false,
            (Self::Identified, Some(_)) => true,
            (Self::Read, Some(c)) => c.role.reads(),
            (Self::Write, Some(c)) => c.role.writes(),
            (Self::Approval, Some(c)) => c.role.approves(),
            (Self::Ceo, Some(c)) => c.role == HumanRole::Ceo,
            (Self::CeoOrManager, Some(c)) => matches!(c.role, HumanRole::Ceo | HumanRole::Manager),
            (Self::SystemOrWrite, Some(c)) => c.role.writes() || c.role == HumanRole::System,
            (Self::CeoOrSystem, Some(c)) => matches!(c.role, HumanRole::Ceo | HumanRole::System),
            (Self::OrgMutation(parameter), Some(c)) => may_change_organisation(c, parameter.and(department)),
        };
        if passes { Ok(()) } else { Err(Error::forbidden(refused)) }
    }
}

fn may_change_organisation(caller: &Identity, department: Option<&str>) -> bool {
    let holds = |role| caller.org_roles.contains(&role);
    if caller.role == HumanRole::System {
        return false;
    }
    if caller.org_roles.is_empty() {
        return caller.role.writes();
    }
    if holds(OrgRole::Owner) || holds(OrgRole::Editor) {
        return true;
    }
    let Some(department) = department else { return false };
    let department = department.to_lowercase();
    holds(OrgRole::DepartmentAdmin)
        && caller.scoped_departments.iter().any(|d| d.to_lowercase() == department)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::caller;
    use HumanRole::*;

    fn passes(guard: Guard, identity: &Identity, department: Option<&str>) -> bool {
        guard.check(Some(identity), department).is_ok()
    }

    #[test]
    fn every_role_meets_every_guard_as_the_table_says() {
        let table: [(Guard, &[HumanRole]); 9] = [
            (Guard::Public, HumanRole::ALL),
            (Guard::Identified, HumanRole::ALL),
            (Guard::Read, &[Ceo, Manager, PairProgrammer, BoardMember, Observer]),
            (Guard::Write, &[Ceo, Manager, PairProgrammer]),
            (Guard::Approval, &[Ceo, Manager, BoardMember]),
            (Guard::Ceo, &[Ceo]),
            (Guard::CeoOrManager, &[Ceo, Manager]),
            (Guard::SystemOrWrite, &[Ceo, Manager, PairProgrammer, System]),
            (Guard::OrgMutation(None), &[Ceo, Manager, PairProgrammer]),
        ];
        for (guard, allowed) in table {
            for &role in HumanRole::ALL {
                assert_eq!(passes(guard, &caller(role), None), allowed.contains(&role), "{guard:?} {role}");
            }
            if guard != Guard::Public {
                let refusal = guard.check(None, None).unwrap_err();
                assert_eq!(
                    (refusal.status(), refusal.code().number()),
                    (403, 1001),
                    "{guard:?} without identity"
                );
            }
        }
    }

    #[test]
    fn department_admins_change_their_departments_only() {
        let mut admin = caller(Observer);
        admin.org_roles = vec![OrgRole::DepartmentAdmin];
        admin.scoped_departments = vec!["Eng".to_owned()];
        let guard = Guard::OrgMutation(Some("name"));
        assert!(passes(guard, &admin, Some("eng")));
        assert!(!passes(guard, &admin, Some("ops")));
        assert!(!passes(guard, &admin, None));
        assert!(!passes(Guard::OrgMutation(None), &admin, Some("eng")), "company-wide");
    }

    #[test]
    fn a_viewer_changes_nothing_even_as_ceo() {
        let mut viewer = caller(Ceo);
        viewer.org_roles = vec![OrgRole::Viewer];
        assert!(!passes(Guard::OrgMutation(Some("name")), &viewer, Some("eng")));
        let mut owner = caller(Observer);
        owner.org_roles = vec![OrgRole::Viewer, OrgRole::Owner];
        assert!(passes(Guard::OrgMutation(None), &owner, None));
    }

    #[test]
    fn seniority_is_the_order_of_the_roles() {
        assert!(
            Observer < BoardMember
                && BoardMember < PairProgrammer
                && PairProgrammer < Manager
                && Manager < Ceo
        );
    }
}
