//! Guards: the conditions that keep a bad day from becoming wrong data, each with a name.
//!
//! `guard!("name", condition)` is `condition`. With the feature `sabotage`, which only tests enable, a
//! guard can be switched off at run time on one thread: then it counts as passed whatever the condition
//! says. A sabotage test removes each guard in turn and demands that a named assertion turns red; a
//! guard whose removal nobody notices guards nothing.

/// A guard by name, and what goes wrong without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The name in `guard!(name, ..)`.
    pub name: &'static str,
    /// What an observer sees when the guard is gone.
    pub without: &'static str,
}

/// `condition`, unless a test has switched this guard off.
#[allow(unused_macros)]
macro_rules! guard {
    ($name:literal, $condition:expr) => {{
        #[cfg(feature = "sabotage")]
        let passed = $crate::guard::is_sabotaged($name) || $condition;
        #[cfg(not(feature = "sabotage"))]
        let passed = $condition;
        passed
    }};
}

#[allow(unused_imports)]
pub(crate) use guard;

#[cfg(feature = "sabotage")]
pub use switch::{Sabotage, is_sabotaged};

#[cfg(feature = "sabotage")]
mod switch {
    use std::cell::RefCell;

    thread_local! {
        static REMOVED: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
    }

    /// Removes a guard on this thread for as long as it lives.
    #[derive(Debug)]
    pub struct Sabotage(&'static str);

    impl Sabotage {
        /// Removes the guard called `name`.
        ///
        /// # Panics
        /// When no guard has that name: a test of a guard that is gone must not pass.
        pub fn remove(name: &'static str) -> Sabotage {
            assert!(
                super::GUARDS.iter().any(|guard| guard.name == name),
                "no guard is called {name}"
            );
            REMOVED.with_borrow_mut(|removed| removed.push(name));
            Sabotage(name)
        }
    }

    impl Drop for Sabotage {
        fn drop(&mut self) {
            REMOVED.with_borrow_mut(|removed| removed.retain(|&name| name != self.0));
        }
    }

    /// Whether the guard called `name` is removed on this thread.
    pub fn is_sabotaged(name: &str) -> bool {
        REMOVED.with_borrow(|removed| removed.contains(&name))
    }
}

/// Every guard of this crate. `tests/tidy.rs` compares the list with the code.
pub const GUARDS: &[Guard] = &[];
