//! What does this machine boot, and what is it told?
//!
//! Pure and small, because it is linked into PID 1: no clock, no socket, no file. It holds four things:
//! the *contract* between server and agent (who I am, what I have, what to do, how it went), the kernel
//! parameters, and the boot decision with the iPXE and GRUB scripts that carry it out, and with TFTP, by which
//! GRUB asks for it; before that, the proxy-DHCP that brings a machine to either.

mod as_text;
mod capture;
mod compare;
mod contract;
mod decide;
mod frame;
mod grub;
mod hex;
mod identity;
mod inventory;
mod knock;
mod mac;
mod order;
mod params;
mod proxy;
mod question;
mod report;
mod scope;
mod script;
mod sealed_keys;
mod selector;
mod text;
mod tftp;
mod uplink;

pub use capture::{
    API_CAPTURE, CAPTURE_NOTES_MAX, CAPTURE_PART_MAX, CaptureEnd, CaptureHow, CaptureOrder,
    CaptureStage, CaptureState,
};
pub use compare::{CompareOrder, ComparePlace, CompareReport, PLACES_MAX};
pub use contract::{
    AGENT_BODY_MAX, API_ANNOUNCE, API_EVENTS, API_HELLO, API_IMAGE, API_JOB, API_MANIFEST,
    ContractError, EVENTS_MAX, EventsAnswer, Hello, JobAnswer, POSITION_HEADER, SENDER_HEADER,
    SERVER_NAME, Welcome,
};
pub use decide::{ActiveJob, Asking, Boot, BootPolicy, BootReason, Decision, decide};
pub use frame::{DHCP_SERVER_PORT, DhcpFrame, FRAME_BYTES_MAX, answer_frame};
pub use grub::{grub_boot, grub_disk, grub_start};
pub use hex::{Hex32, HexError};
pub use identity::{Identity, KnownMachine, Resolution, is_bad_uuid, resolve};
pub use inventory::{DiskInfo, Firmware, Inventory, NicInfo, OrphanInfo, OrphanKind};
pub use knock::{API_KNOCK, Knock, KnockAnswer};
pub use mac::{Mac, MacError};
pub use order::{
    FlashOrder, FreePolicy, Job, LastAction, Order, PartialFlashOrder, SessionTicket, VerifyPolicy,
};
pub use params::{Iface, KernelParams, LogLevel, PARAMETERS, ParamWarning, Parameter};
pub use proxy::{BOOT_SERVER_PORT, BootFileError, Door, ProxyAnswer, ProxyOffers, Silence};
pub use question::{BootClient, BootMessage, BootQuestion, QuestionError};
pub use report::{AgentEvent, EventKind, FallbackReport, JobReport, Phase, Progress};
pub use scope::FlashScope;
pub use script::{AgentBoot, DISK_LOADER, Platform, boot_script, start_script};
pub use sealed_keys::{SealedKeys, SealedKeysError};
pub use selector::{ChoiceError, DiskSelector, SelectorError};
pub use text::plain;
pub use tftp::{
    TftpHeard, TftpOutcome, TftpRead, TftpRefusal, TftpTransfer, TftpTransmit, tftp_data,
};
pub use uplink::{AddressError, Bond, BondError, BondMode, StaticAddress, VlanError, VlanId};
