//! The ways of vendors, as a simulated controller plays them.

/// What a controller makes of ETags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Etag {
    /// It has none.
    None,
    /// It has weak ones and does not ask for them.
    Weak,
    /// Nothing is changed without the present one.
    Required,
    /// It never recognises its own.
    Broken,
}

/// A vendor's ways.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vendor {
    pub(crate) name: &'static str,
    pub(crate) system: &'static str,
    pub(crate) etag: Etag,
    pub(crate) resets: &'static [&'static str],
    /// The kinds of reset are in a document of their own.
    pub(crate) reset_info: bool,
    pub(crate) sessions: bool,
    /// Changes are tasks, done some questions later.
    pub(crate) tasks: bool,
    /// The next boot is changed on a document of its own.
    pub(crate) settings: bool,
    /// Without a mode the override falls back to Legacy.
    pub(crate) mode_falls_back: bool,
    /// A mode that is set already is complained about, and the rest is taken.
    pub(crate) mode_complains: bool,
}

const ALL_RESETS: &[&str] = &[
    "On",
    "ForceOff",
    "ForceRestart",
    "GracefulShutdown",
    "PushPowerButton",
    "Nmi",
];

/// The vendors that are played.
pub(crate) const VENDORS: [Vendor; 6] = [
    Vendor {
        name: "Dell",
        system: "System.Embedded.1",
        etag: Etag::None,
        resets: &[
            "On",
            "ForceOff",
            "ForceRestart",
            "GracefulShutdown",
            "PowerCycle",
        ],
        reset_info: false,
        sessions: true,
        tasks: false,
        settings: false,
        mode_falls_back: false,
        mode_complains: true,
    },
    Vendor {
        name: "HPE",
        system: "1",
        etag: Etag::Weak,
        resets: ALL_RESETS,
        reset_info: false,
        sessions: true,
        tasks: false,
        settings: false,
        mode_falls_back: false,
        mode_complains: false,
    },
    Vendor {
        name: "Lenovo",
        system: "1",
        etag: Etag::Required,
        resets: ALL_RESETS,
        reset_info: true,
        sessions: true,
        tasks: true,
        settings: false,
        mode_falls_back: false,
        mode_complains: false,
    },
    Vendor {
        name: "Supermicro",
        system: "1",
        etag: Etag::Broken,
        resets: ALL_RESETS,
        reset_info: true,
        sessions: true,
        tasks: false,
        settings: false,
        mode_falls_back: true,
        mode_complains: false,
    },
    Vendor {
        name: "AMI",
        system: "Self",
        etag: Etag::Required,
        resets: ALL_RESETS,
        reset_info: false,
        sessions: true,
        tasks: false,
        settings: true,
        mode_falls_back: false,
        mode_complains: false,
    },
    Vendor {
        name: "OpenBMC",
        system: "system",
        etag: Etag::None,
        resets: &["On", "ForceOff", "ForceRestart", "PowerCycle"],
        reset_info: false,
        sessions: false,
        tasks: false,
        settings: false,
        mode_falls_back: false,
        mode_complains: false,
    },
];
