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
macro_rules! guard {
    ($name:literal, $condition:expr) => {{
        #[cfg(feature = "sabotage")]
        let passed = $crate::guard::is_sabotaged(const { $crate::guard::bit($name) }) || $condition;
        #[cfg(not(feature = "sabotage"))]
        let passed = $condition;
        passed
    }};
}

pub(crate) use guard;

#[cfg(feature = "sabotage")]
pub use switch::Sabotage;
#[cfg(feature = "sabotage")]
pub(crate) use switch::{bit, is_sabotaged};

#[cfg(feature = "sabotage")]
mod switch {
    use std::cell::Cell;

    use super::GUARDS;

    thread_local! {
        /// One bit for each guard: simulations ask a few hundred million times.
        static REMOVED: Cell<u128> = const { Cell::new(0) };
    }

    /// Removes a guard on this thread for as long as it lives.
    #[derive(Debug)]
    pub struct Sabotage {
        bit: u128,
        before: bool,
    }

    impl Sabotage {
        /// Removes the guard called `name`.
        ///
        /// # Panics
        /// When no guard has that name: a test of a guard that is gone must not pass.
        pub fn remove(name: &str) -> Sabotage {
            let bit = bit(name);
            let before = is_sabotaged(bit);
            REMOVED.set(REMOVED.get() | bit);
            Sabotage { bit, before }
        }
    }

    impl Drop for Sabotage {
        fn drop(&mut self) {
            if !self.before {
                REMOVED.set(REMOVED.get() & !self.bit);
            }
        }
    }

    /// Whether the guard of this bit is removed on this thread.
    pub(crate) fn is_sabotaged(bit: u128) -> bool {
        REMOVED.get() & bit != 0
    }

    /// The bit of the guard called `name`; a name that is not in the list does not compile.
    pub(crate) const fn bit(name: &str) -> u128 {
        let mut at = 0;
        while at < GUARDS.len() {
            if equal(GUARDS[at].name.as_bytes(), name.as_bytes()) {
                return 1 << at;
            }
            at += 1;
        }
        panic!("no guard has this name");
    }

    const fn equal(one: &[u8], other: &[u8]) -> bool {
        let mut at = 0;
        while at < one.len() && at < other.len() && one[at] == other[at] {
            at += 1;
        }
        at == one.len() && at == other.len()
    }
}

/// Every guard of this crate, by name. `tests/tidy.rs` compares the list with the code.
pub const GUARDS: &[Guard] = &[
    Guard {
        name: "announce_key",
        without: "an announce of this session number, well signed by a stranger's key, is \
                  believed; it can end the session for every machine",
    },
    Guard {
        name: "announce_signature",
        without: "an announce that nobody signed is believed; it can end the session for every \
                  machine",
    },
    Guard {
        name: "block_bounds",
        without: "a symbol of a block that the layout does not have panics the receiver",
    },
    Guard {
        name: "crc",
        without: "a symbol damaged on the way goes into its block; sinks are handed wrong bytes",
    },
    Guard {
        name: "deficit_as_of",
        without: "what is on its way is sent again for every report; more flows than loss makes \
                  necessary",
    },
    Guard {
        name: "done_ack",
        without: "a machine stops before the sender has heard DONE; the sender ends with that \
                  machine lost",
    },
    Guard {
        name: "duplicate_symbol",
        without: "a datagram that came twice counts twice; blocks do not decode or reach sinks \
                  with holes",
    },
    Guard {
        name: "early_bound",
        without: "datagrams before the first announce or before the preamble are kept without \
                  end; held bytes grow over 28 MiB",
    },
    Guard {
        name: "expected_key",
        without: "a machine joins a session signed by another key than the one it was given",
    },
    Guard {
        name: "expected_object",
        without: "a machine joins the session of another object than the one it was given",
    },
    Guard {
        name: "expected_session",
        without: "a machine joins another session than the one it was given",
    },
    Guard {
        name: "feedback_session",
        without: "a report about another session makes this one send what nobody lacks, and its \
                  machine appears in the books",
    },
    Guard {
        name: "laggard",
        without: "a machine that is nearly cut off counts like any other; everybody waits while the same \
                  is sent for it again and again",
    },
    Guard {
        name: "machine_starts",
        without: "a hostile machine fills the books with starts of itself, and there is no room for \
                  others",
    },
    Guard {
        name: "machine_table",
        without: "invented machines fill the memory of the sender: more than 16384 are known",
    },
    Guard {
        name: "max_open",
        without: "symbols of many blocks make the receiver hold more than 24 MiB of incomplete \
                  blocks",
    },
    Guard {
        name: "nonce_end",
        without: "a sealed session goes on when its numbers begin again, and one number seals two \
                  symbols under one key",
    },
    Guard {
        name: "payload_verdict",
        without: "a block that the sink refused counts as accepted; the machine ends with wrong \
                  content",
    },
    Guard {
        name: "preamble_hash",
        without: "a preamble with a forged symbol in it reaches the sink, which cannot begin",
    },
    Guard {
        name: "reply_address",
        without: "whoever repeats an announce before it arrives gets the reports; the sender does \
                  not hear of the machine until the next",
    },
    Guard {
        name: "report_echo",
        without: "a report recorded long ago is believed; a machine that is gone and forgotten \
                  appears in the books again",
    },
    Guard {
        name: "report_order",
        without: "a report overtaken on the way undoes a newer one; a machine that is done \
                  appears to lack blocks, and the session goes on until it is given up",
    },
    Guard {
        name: "sealed_data",
        without: "a symbol that was not sealed with the key of the session goes into its block; \
                  sinks are handed wrong bytes",
    },
    Guard {
        name: "sequence_jump",
        without: "one forged sequence number makes a machine report a million lost datagrams and \
                  deficits of the future; more flows than loss makes necessary",
    },
    Guard {
        name: "session",
        without: "symbols of another session on the group go into blocks; sinks are handed wrong \
                  bytes",
    },
    Guard {
        name: "silence",
        without: "a machine is given up while it is alive; the sender says it is lost and the \
                  session ends too early",
    },
    Guard {
        name: "sink_room",
        without: "a sink without room is handed blocks all the same",
    },
    Guard {
        name: "symbol_bytes",
        without: "a session of tiny symbols is joined, whose blocks have more symbols than a \
                  datagram can number",
    },
    Guard {
        name: "symbol_size",
        without: "a symbol of another size goes into its block; sinks are handed wrong bytes",
    },
    Guard {
        name: "unsealed_announce",
        without: "a machine that was given a key joins a session that is not sealed",
    },
    Guard {
        name: "unsealed_data",
        without: "in a sealed session a symbol that is not sealed goes into its block; sinks are \
                  handed wrong bytes",
    },
    Guard {
        name: "unsealed_report",
        without: "the sender of a sealed session believes a report that is not sealed: anybody \
                  speaks for any machine",
    },
    Guard {
        name: "wanted_filter",
        without: "blocks that are not wanted, or not any more, are put together again; sinks are \
                  handed blocks twice",
    },
    Guard {
        name: "wanted_union",
        without: "blocks that nobody lacks are sent; a machine that has most of it makes the \
                  rest flow again",
    },
    Guard {
        name: "welcome",
        without: "the recording of an old session, sealed with a key that is still in use, is \
                  received like a new one: the old image is put on a disk",
    },
];

#[cfg(all(test, feature = "sabotage"))]
mod tests {
    use super::Sabotage;

    #[test]
    fn a_guard_is_gone_only_while_its_sabotage_lives() {
        let holds = || guard!("crc", false);
        assert!(!holds());
        {
            let _gone = Sabotage::remove("crc");
            assert!(holds());
        }
        assert!(!holds());
    }
}
