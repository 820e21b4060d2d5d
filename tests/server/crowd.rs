//! A crowd that multicast does not reach, at the server's own routes, and a session beside it.
//!
//! One client asks for everybody, one question at a time, so that the order of questions is known and with it the place
//! of each machine in the queue. What is admitted is fetched by threads, as many as are served at a time.

use std::collections::VecDeque;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::lab::wait_until;

use super::desk::{AgentClient, Server, netflash};

const GROUP: &str = "239.192.80.8:9208";
/// Machines that fetch over HTTP.
const CROWD: usize = 200;
/// Of these are served at a time.
const PLACES: usize = 32;
/// The session wants 90 Mbit/s and what is fetched 80, of 100 together: so each gets half.
const SETTINGS: &str = "rate = \"90M\"\nrate_total = \"100M\"\nseal = false\nwait_seconds = 1\n\
                        [fallback]\nmachines = 32\nrate = \"80M\"\n";
const HALF_BITS: u64 = 50_000_000;
const FETCH_BITS: u64 = 80_000_000;
/// Size of the disk, and what each machine of the crowd fetches of its image.
const DISK_BYTES: usize = 48 << 20;
const PART_BYTES: usize = 128 << 10;
/// Who waits and does not ask for this long may lose its place.
const LATE: Duration = Duration::from_secs(14);
/// How long any of it may take on an idle machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A machine of the crowd.
struct Machine {
    bearer: String,
    job: u64,
    number: usize,
    /// When it asked last and when it is to ask again.
    asked: Option<Instant>,
    due: Instant,
}

impl Machine {
    fn path(&self, what: &str) -> String {
        format!("/agent/v1/jobs/{}/{what}", self.job)
    }

    /// Where in the image's file its part begins.
    fn part(&self, image_bytes: usize) -> std::ops::Range<usize> {
        let start = (image_bytes - PART_BYTES) / CROWD * self.number;
        start..start + PART_BYTES
    }
}

#[test]
fn two_hundred_machines_queue_over_http_and_the_session_beside_them_is_unharmed() -> Result<()> {
    let server = Server::start_with(GROUP, SETTINGS)?;
    let disk: Vec<u8> = blake3_stream(DISK_BYTES);
    let image = server.add_image_of("room", &disk)?;
    let bytes = std::fs::read(&image)?;
    enter_machines(&server)?;
    let jobs = server.ask(&["job", "flash", "room", "--all", "--yes"])?;
    let agent = server.agent()?;
    let crowd = greet(&server, &agent, &jobs)?;

    let copy = server.scratch.path().join("copy.raw");
    let receiver = receive(&copy)?;
    wait_until("the session to flow", LIMIT, || {
        Ok(session(&server)?["source_symbols"].as_u64() > Some(0))
    })?;
    let granted = serve(&server, &agent, crowd, &bytes)?;
    ensure!(
        granted.contains(&HALF_BITS) && granted.iter().all(|&bits| bits <= FETCH_BITS),
        "what was fetched might send {granted:?} bits per second"
    );

    let ended = end_of(receiver)?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "the machine beside: {said}");
    ensure!(std::fs::read(&copy)? == disk, "the disk beside differs");
    let result: Value = serde_json::from_slice(&ended.stdout)?;
    ensure!(result["fallback"].is_null(), "it left multicast: {result}");
    let received = result["receivers"][0]["received_bytes"].as_u64();
    ensure!(
        received >= Some(DISK_BYTES as u64),
        "not everything came by multicast: {result}"
    );
    let session = session(&server)?;
    let count = |name: &str| session[name].as_u64().context("a counter of the session");
    let (source, repair) = (count("source_symbols")?, count("repair_symbols")?);
    println!("session: {source} source symbols, {repair} of repair; grants seen: {granted:?}");
    ensure!(
        (source + repair) * 1440 <= bytes.len() as u64 * 23 / 20,
        "{source} + {repair} symbols were sent for {} bytes",
        bytes.len()
    );
    Ok(())
}

/// Bytes that do not compress, the same in each run.
fn blake3_stream(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let mut stream = blake3::Hasher::new_derive_key("netflash tests: a crowd").finalize_xof();
    stream.fill(&mut bytes);
    bytes
}

fn mac(number: usize) -> String {
    format!("52:54:00:cc:{:02x}:{:02x}", number >> 8, number & 0xff)
}

/// The crowd, and one more machine, whose job keeps the session open.
fn enter_machines(server: &Server) -> Result<()> {
    let rows = (0..=CROWD).map(|number| format!("m{number},{}\n", mac(number)));
    let list: String = std::iter::once("name,mac\n".to_owned())
        .chain(rows)
        .collect();
    let file = server.scratch.path().join("room.csv");
    std::fs::write(&file, list)?;
    let file = file.to_str().context("scratch paths are UTF-8")?;
    server.ask(&["machine", "import", file]).map(drop)
}

/// Every machine of the crowd boots, says hello and takes its job.
fn greet(server: &Server, agent: &AgentClient, jobs: &Value) -> Result<Vec<Machine>> {
    let jobs = jobs.as_array().context("a list of jobs")?;
    ensure!(jobs.len() == CROWD + 1, "{} jobs", jobs.len());
    let greet = |number| {
        let mac = mac(number);
        let token = server.token(&mac)?;
        let (status, welcome) = agent.hello_as(&mac, &token, 1)?;
        ensure!(status == 200, "{welcome}");
        Ok(Machine {
            bearer: welcome["bearer"].as_str().context("a bearer")?.to_owned(),
            job: welcome["job"]["id"].as_u64().context("a job")?,
            number,
            asked: None,
            due: Instant::now(),
        })
    };
    (0..CROWD).map(greet).collect()
}

/// The machine beside, which multicast reaches.
fn receive(disk: &std::path::Path) -> Result<Child> {
    Command::new(netflash()?)
        .arg("receive")
        .arg(disk)
        .args(["--group", GROUP, "--iface", "127.0.0.1", "--yes", "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting netflash receive")
}

/// How the machine beside ended; it is killed when it does not.
fn end_of(mut receiver: Child) -> Result<Output> {
    let ended = wait_until("the machine beside", LIMIT, || {
        Ok(receiver.try_wait()?.is_some())
    });
    if ended.is_err() {
        receiver.kill()?;
    }
    let output = receiver.wait_with_output()?;
    ended.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok(output)
}

/// Lets the crowd fetch until everybody has its part; the rates at which it was allowed to, as the status told.
fn serve(
    server: &Server,
    agent: &AgentClient,
    crowd: Vec<Machine>,
    image: &[u8],
) -> Result<Vec<u64>> {
    // A machine that comes late for its turn loses it, and then places are others than these.
    let (done, on_time) = (AtomicUsize::new(0), AtomicBool::new(true));
    let mut granted = Vec::new();
    thread::scope(|scope| {
        let mut crowd = crowd;
        // Whoever was told to wait, in the order in which they asked first.
        let mut queue: VecDeque<usize> = VecDeque::new();
        let (done, on_time) = (&done, &on_time);
        // Nobody fetches before everybody has asked: so nobody leaves, and the queue is as long as it can be.
        let (mut admitted, mut fetching, mut asks) = (Vec::new(), Vec::new(), 0);
        let mut longest = 0;
        while !crowd.is_empty() {
            // Of those who are due, whoever has been so longest.
            crowd.sort_by_key(|machine| (machine.due, machine.number));
            let mut machine = crowd.remove(0);
            thread::sleep(machine.due.saturating_duration_since(Instant::now()));
            let late = machine.asked.is_some_and(|asked| asked.elapsed() > LATE);
            on_time.fetch_and(!late, Ordering::Relaxed);
            let strict = || on_time.load(Ordering::Relaxed);
            let (head, manifest) = agent.fetch(&machine.path("manifest"), &machine.bearer, None)?;
            machine.asked = Some(Instant::now());
            let place = queue.iter().position(|&number| number == machine.number);
            let ahead = place.unwrap_or(queue.len());
            match head.status().as_u16() {
                200 => {
                    ensure!(!manifest.is_empty(), "an empty manifest");
                    ensure!(
                        ahead < PLACES || !strict(),
                        "m{} was admitted before {ahead} others",
                        machine.number
                    );
                    queue.retain(|&number| number != machine.number);
                    admitted.push(machine);
                }
                503 => {
                    let header = |name: &str| -> Option<usize> {
                        head.headers().get(name)?.to_str().ok()?.parse().ok()
                    };
                    let position = header("netflash-position").context("no position")?;
                    ensure!(
                        position == ahead + 1 || !strict(),
                        "m{} is number {position}, behind {ahead}",
                        machine.number
                    );
                    let again = header("retry-after").context("nothing says when to ask again")?;
                    machine.due = Instant::now() + Duration::from_secs(again as u64);
                    if place.is_none() {
                        queue.push_back(machine.number);
                    }
                    crowd.push(machine);
                }
                status => anyhow::bail!("the manifest is answered with {status}"),
            }
            asks += 1;
            if asks >= CROWD {
                for machine in admitted.drain(..) {
                    let fetch = move || fetch(agent, &machine, image, done, on_time);
                    fetching.push(scope.spawn(fetch));
                }
            }
            longest = longest.max(queue.len());
            if asks % 20 == 0 {
                let fallback = server.ask(&["status"])?["fallback"].take();
                let served = fallback["served"].as_u64().context("machines served")?;
                ensure!(served as usize <= PLACES, "{served} are served at a time");
                granted.push(fallback["rate_bits"].as_u64().context("a rate")?);
            }
        }
        for thread in fetching {
            thread.join().expect("no panic")?;
        }
        ensure!(
            longest == CROWD - PLACES || !on_time.load(Ordering::Relaxed),
            "only {longest} machines waited at a time"
        );
        println!("{asks} questions for {CROWD} machines; all on time: {on_time:?}");
        Ok::<_, anyhow::Error>(())
    })?;
    ensure!(done.into_inner() == CROWD, "not everybody was served");
    Ok(granted)
}

/// Fetches a machine's part, which must be right, and says that its job is done.
fn fetch(
    agent: &AgentClient,
    machine: &Machine,
    image: &[u8],
    done: &AtomicUsize,
    on_time: &AtomicBool,
) -> Result<()> {
    let part = machine.part(image.len());
    let got = loop {
        let (head, bytes) =
            agent.fetch(&machine.path("image"), &machine.bearer, Some(part.clone()))?;
        match head.status().as_u16() {
            206 => break bytes,
            503 => {
                on_time.store(false, Ordering::Relaxed);
                thread::sleep(Duration::from_secs(1));
            }
            status => anyhow::bail!("a range is answered with {status}"),
        }
    };
    ensure!(got == image[part], "m{} got other bytes", machine.number);
    let event = json!([{ "sequence": 0, "uptime_ms": 1, "event": {
        "kind": "failed", "reason": "only as far as this test goes" } }]);
    let path = machine.path("events");
    let (status, said) = agent.post(&path, &machine.bearer, event.to_string().as_bytes())?;
    ensure!(status == 200, "{said}");
    done.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

fn session(server: &Server) -> Result<Value> {
    Ok(server.ask(&["status"])?["sessions"][0].take())
}
