//! The rules of the fleet, with a real store and no network.
