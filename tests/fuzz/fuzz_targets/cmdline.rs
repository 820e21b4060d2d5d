//! Everything that can stand on a kernel command line: nothing may stop PID 1, and what was understood must survive
//! being written down again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netflash_pxe::KernelParams;

fuzz_target!(|input: &[u8]| {
    let line = String::from_utf8_lossy(input);
    let (params, warnings) = KernelParams::parse(&line);
    assert!(warnings.len() <= KernelParams::WARNINGS_MAX);
    let (again, warnings) = KernelParams::parse(&params.render());
    assert_eq!(params, again);
    assert_eq!(warnings, []);
});
