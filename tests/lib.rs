//! The test room: it sees every other room and is seen by none.
