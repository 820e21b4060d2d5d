//! `netflash-init`: PID 1 of a machine that is being imaged.

fn main() -> std::process::ExitCode {
    netflash_init::run()
}
