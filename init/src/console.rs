//! Every console the kernel writes to, VGA and serial alike, with one thread each.
//!
//! `/dev/console` reaches only the last of them, so the list in
//! `/sys/class/tty/console/active` is opened one by one. A slow serial line must never stop
//! a flash: each console has a bounded queue, and what does not fit is dropped and counted.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::{LevelFilter, Log, Metadata, Record};
use netflash_pxe::{Progress, plain};

use crate::screen::Screen;

/// Lines waiting for a slow console before more are dropped.
const QUEUE_MAX: usize = 256;
/// How often a serial line is told the progress.
const SERIAL_PROGRESS: Duration = Duration::from_secs(5);
/// Longest log line, in characters.
const LINE_MAX: usize = 1000;
/// Columns and control characters a picture may cost; larger text is cut.
const SHOUT_MAX: usize = 4096;

static CONSOLE: OnceLock<Console> = OnceLock::new();

/// What a console's thread is handed.
#[derive(Debug)]
enum Message {
    Text(String),
    Drained(SyncSender<()>),
}

type Queue = SyncSender<Message>;

/// The consoles of this process.
#[derive(Debug)]
pub(crate) struct Console {
    serial: Vec<Queue>,
    vga: Vec<Queue>,
    screen: Mutex<Screen>,
    told: Mutex<Option<Instant>>,
    dropped: AtomicU64,
}

impl Console {
    /// Opens what the kernel calls active and makes it the target of `log`.
    ///
    /// Later calls return the same consoles.
    pub(crate) fn start(level: LevelFilter) -> &'static Console {
        let console = CONSOLE.get_or_init(|| {
            let (vga, serial): (Vec<_>, Vec<_>) =
                active().into_iter().partition(|path| is_vga(path));
            Console {
                serial: serial.iter().filter_map(|path| writer(path)).collect(),
                vga: vga.iter().filter_map(|path| writer(path)).collect(),
                screen: Mutex::new(Screen::default()),
                told: Mutex::new(None),
                dropped: AtomicU64::new(0),
            }
        });
        // A second start in one process finds the logger set, which is what it wants.
        if log::set_logger(console).is_ok() {
            log::set_max_level(level);
        }
        console
    }

    /// Shows the machine's name from now on.
    pub(crate) fn machine(&self, name: &str) {
        self.change(|screen| screen.set_machine(name));
    }

    /// Shows what is being done now, and logs it.
    pub(crate) fn phase(&self, phase: &str) {
        self.change(|screen| screen.set_phase(phase));
        *lock(&self.told) = None;
        log::info!("{phase}");
    }

    /// Shows a phase with a bar of its own, without logging it.
    pub(crate) fn status(&self, phase: &str, progress: Progress) {
        self.change(|screen| screen.set_phase(phase));
        self.progress(progress);
    }

    /// Moves the bar; serial lines hear of it every few seconds.
    pub(crate) fn progress(&self, progress: Progress) {
        self.change(|screen| screen.set_progress(progress));
        let now = Instant::now();
        let mut told = lock(&self.told);
        if told.is_none_or(|at| now.duration_since(at) >= SERIAL_PROGRESS) {
            *told = Some(now);
            let line = lock(&self.screen).progress_line();
            self.send(&self.serial, &format!("{line}\r\n"));
        }
    }

    /// Says in plain words what went wrong and what can be done about it.
    pub(crate) fn trouble(&self, lines: &[String]) {
        self.change(|screen| screen.set_trouble(lines));
        for line in lines {
            log::error!("{line}");
        }
    }

    /// Waits, at most `limit`, until what was said is written; for the moment before the end.
    pub(crate) fn drain(&self, limit: Duration) {
        let (done, written) = sync_channel(self.serial.len() + self.vga.len());
        let asked = self
            .serial
            .iter()
            .chain(&self.vga)
            .filter(|queue| queue.try_send(Message::Drained(done.clone())).is_ok())
            .count();
        let end = Instant::now() + limit;
        for _ in 0..asked {
            let left = end.saturating_duration_since(Instant::now());
            if written.recv_timeout(left).is_err() {
                return;
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Screen)) {
        let mut screen = lock(&self.screen);
        change(&mut screen);
        if !self.vga.is_empty() {
            let picture = screen.picture();
            drop(screen);
            self.send(&self.vga, &picture);
        }
    }

    fn send(&self, queues: &[Queue], text: &str) {
        for queue in queues {
            if queue.try_send(Message::Text(text.to_owned())).is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Log for Console {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // TLS and HTTP crates talk per record; only our own rooms are worth a console.
        metadata.target().starts_with("netflash")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = format!(
                "[{:>9.3}] {:5} {}",
                uptime().as_secs_f64(),
                record.level().as_str().to_lowercase(),
                plain(&record.args().to_string(), LINE_MAX)
            );
            self.change(|screen| screen.push_log(&line));
            self.send(&self.serial, &format!("{line}\r\n"));
        }
    }

    fn flush(&self) {}
}

/// Writes text to every console at once, without queue or thread: for last words.
pub(crate) fn shout(text: &str) {
    for path in active() {
        if let Some(mut file) = open(&path) {
            let text: String = text.chars().take(SHOUT_MAX).collect();
            // Nobody is left who could be told that a console does not work.
            let _ = write!(file, "\r\n{}\r\n", text.replace('\n', "\r\n"));
        }
    }
}

/// Time since the kernel started; zero when it cannot be read.
pub(crate) fn uptime() -> Duration {
    fs::read_to_string("/proc/uptime")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .unwrap_or_default()
}

/// Keeps the kernel's own messages off the picture, or lets all of them through.
pub(crate) fn set_kernel_log(everything: bool) {
    // Errors stay visible: a broken disk or driver is what the operator must see.
    let levels = if everything { "7 4 1 7" } else { "4 4 1 7" };
    let _ = fs::write("/proc/sys/kernel/printk", levels);
}

/// Devices of the active consoles; `/dev/console` when the kernel does not say.
fn active() -> Vec<PathBuf> {
    let names = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let devices: Vec<PathBuf> = names
        .split_whitespace()
        .map(|name| Path::new("/dev").join(name))
        .filter(|path| path.exists())
        .collect();
    if devices.is_empty() {
        vec![PathBuf::from("/dev/console")]
    } else {
        devices
    }
}

/// `tty0` and its like; `ttyS0` and `hvc0` are lines.
fn is_vga(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_prefix("tty"))
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}

fn open(path: &Path) -> Option<File> {
    let flags = nix::libc::O_NOCTTY | nix::libc::O_NONBLOCK;
    OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(path)
        .ok()
}

/// A console's own thread; none when the device cannot be opened.
fn writer(path: &Path) -> Option<Queue> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(nix::libc::O_NOCTTY)
        .open(path)
        .ok()?;
    let (sender, receiver) = sync_channel(QUEUE_MAX);
    thread::Builder::new()
        .name("console".into())
        .spawn(move || write_all(file, &receiver))
        .ok()?;
    Some(sender)
}

fn write_all(mut file: File, messages: &Receiver<Message>) {
    for message in messages {
        // A console that went away (USB serial) costs its lines, nothing else.
        match message {
            Message::Text(text) => drop(file.write_all(text.as_bytes())),
            Message::Drained(done) => drop(done.try_send(())),
        }
    }
}

/// A poisoned lock still holds a screen that can be drawn.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_virtual_terminals_get_pictures() {
        for (name, expected) in [
            ("tty0", true),
            ("tty1", true),
            ("tty", false),
            ("ttyS0", false),
            ("hvc0", false),
        ] {
            assert_eq!(is_vga(&Path::new("/dev").join(name)), expected, "{name}");
        }
    }
}
