//! What agents say: hello, "what is there to do?", and how it goes.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use netflash_imager::Image;
use netflash_multicast::Membership;
use netflash_pxe::{
    AgentEvent, CaptureOrder, EVENTS_MAX, EventKind, EventsAnswer, FlashOrder, Hello, Inventory,
    JobAnswer, Order, PartialFlashOrder, Phase, Resolution, SealedKeys, SessionTicket, Welcome,
    plain,
};

use super::{Fleet, FleetError, event, job_event, now, resolve_among};
use crate::fallback::{Board, Desk};
use crate::job::{Job, JobState};
use crate::machine::{Machine, StoredImage};
use crate::secret;
use crate::session::Patience;
use crate::store::Store;

/// Seconds after which an agent without a job asks again.
const POLL_SECONDS: u32 = 5;

/// The public key of each machine's agent, with the bearer that is good with it. In memory: after a start of the server
/// an agent whose key is needed is asked to say hello again.
pub(super) type AgentKeys = BTreeMap<i64, (String, [u8; 32])>;

/// What a machine fetches over HTTP: who it is, of what, and where it queues.
pub(crate) struct Beside {
    pub(crate) desk: Arc<Desk>,
    pub(crate) machine: u64,
    pub(crate) image: Arc<Image>,
    pub(crate) board: Board,
}

impl Fleet {
    /// An agent's first words: its token decides which machine it is, and its identity must not contradict.
    pub(crate) fn hello(&self, hello: &Hello) -> Result<Welcome, FleetError> {
        hello
            .check()
            .map_err(|error| FleetError::Malformed(error.to_string()))?;
        let mut store = self.store();
        let token_hash = secret::hash(hello.token.trim());
        let token = store.token(&token_hash)?.ok_or_else(|| {
            FleetError::Forbidden("unknown token; boot over the network again".to_owned())
        })?;
        let machines = store.machines()?;
        let resolution = resolve_among(&hello.identity, &machines);
        let machine = machines
            .into_iter()
            .find(|machine| machine.id == token.machine);
        let mut machine =
            machine.ok_or_else(|| FleetError::Forbidden("this machine was removed".to_owned()))?;

        let agent_key = secret::hash(&hello.agent_key.to_string());
        match &token.bound_to {
            Some(bound_to) if *bound_to == agent_key => {}
            Some(_) => {
                let text = "a used token came again with another agent's key: somebody copied it";
                log::warn!("alert machine={} text={text:?}", machine.name);
                store.log(&event("alert", Some(&machine.name), None, text))?;
                return Err(FleetError::Forbidden(
                    "this token is spent; boot over the network again".to_owned(),
                ));
            }
            None if token.expires < now() => {
                return Err(FleetError::Forbidden(
                    "this token is too old; boot over the network again".to_owned(),
                ));
            }
            None => {}
        }
        // An identity of nobody is fine: the token was made for a machine known by what iPXE told, and the agent may
        // see less (no SMBIOS serial) or more. Another machine's identity is not.
        if let Resolution::Known(id) = resolution
            && id != machine.id
        {
            let text = "its token was made for this machine, but it is another one by its identity";
            log::warn!("alert machine={} text={text:?}", machine.name);
            store.log(&event("alert", Some(&machine.name), None, text))?;
            return Err(FleetError::Forbidden(format!(
                "this token was made for {}",
                machine.name
            )));
        }

        // The same token and key always give the same bearer, so that a repeated hello changes nothing.
        let bearer = secret::hash(&format!(
            "bearer {} {}",
            hello.token.trim(),
            hello.agent_key
        ));
        let bearer_hash = secret::hash(&bearer);
        learn(&mut machine, hello);
        machine.last_seen = Some(now());
        let text = format!("agent {}", plain(&hello.agent_version, 32));
        let greeted = event("agent_hello", Some(&machine.name), None, text);
        if token.bound_to.is_none() {
            store.bind_token(&token_hash, &agent_key, &bearer_hash, &greeted)?;
        } else if store.bearer(&bearer_hash)?.is_none() {
            return Err(FleetError::Forbidden(
                "a newer agent of this machine is here already".to_owned(),
            ));
        }
        store.update_machine(&machine, None)?;
        self.agent_keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(machine.id, (bearer_hash.clone(), hello.agent_key.0));
        let job = self.give_job(store.as_mut(), machine.id, &bearer_hash)?;
        log::info!(
            "agent machine={} job={:?} state=hello",
            machine.name,
            job.as_ref().map(|job| job.id)
        );
        Ok(Welcome {
            machine: machine.id,
            name: machine.name,
            bearer,
            job,
            poll_seconds: POLL_SECONDS,
            server_time: now(),
        })
    }

    /// What the agent with this bearer is to do.
    pub(crate) fn job_of(&self, bearer: &str) -> Result<JobAnswer, FleetError> {
        let mut store = self.store();
        let hash = secret::hash(bearer);
        let machine = store.bearer(&hash)?.ok_or(FleetError::Unauthorized)?;
        Ok(JobAnswer {
            job: self.give_job(store.as_mut(), machine, &hash)?,
            poll_seconds: POLL_SECONDS,
        })
    }

    /// What the machine with this bearer fetches of job `id` when multicast does not reach it.
    pub(crate) fn beside(&self, bearer: &str, id: u64) -> Result<Beside, FleetError> {
        let desk = self.desk.clone().ok_or_else(|| {
            FleetError::Refused("fallback.machines is 0: nothing is sent over HTTP".to_owned())
        })?;
        let store = self.store();
        let hash = secret::hash(bearer);
        let machine = store.bearer(&hash)?.ok_or(FleetError::Unauthorized)?;
        let job = store.job(id)?.filter(|job| job.machine == machine);
        let job = job.ok_or_else(|| FleetError::Absent(format!("job {id} of this machine")))?;
        if job.agent.as_deref() != Some(&hash) || !job.state.is_active() {
            return Err(FleetError::Refused(format!("job {id} is not this agent's")));
        }
        let known = match job.needs_session() {
            true => None,
            false => stored(store.as_ref(), &job)?,
        };
        // Opening an image takes a moment: nothing is locked meanwhile.
        drop(store);
        let (image, board) = match known {
            Some(image) => (self.shelf.take(&image)?, Board::default()),
            None => self
                .sessions
                .beside(job.batch)
                .ok_or_else(|| FleetError::Absent(format!("session of job {id}")))?,
        };
        Ok(Beside {
            desk,
            machine: machine.unsigned_abs(),
            image,
            board,
        })
    }

    /// Take an agent's events, in order, each once.
    pub(crate) fn agent_events(
        &self,
        bearer: &str,
        id: u64,
        events: &[AgentEvent],
    ) -> Result<EventsAnswer, FleetError> {
        if events.len() > EVENTS_MAX {
            return Err(FleetError::Malformed(format!(
                "more than {EVENTS_MAX} events at once"
            )));
        }
        let mut store = self.store();
        let hash = secret::hash(bearer);
        let machine = store.bearer(&hash)?.ok_or(FleetError::Unauthorized)?;
        let job = store.job(id)?.filter(|job| job.machine == machine);
        let mut job = job.ok_or_else(|| FleetError::Absent(format!("job {id} of this machine")))?;
        if job.agent.as_deref() != Some(&hash) {
            return Err(FleetError::Refused(format!(
                "job {id} was not given to this agent"
            )));
        }
        let was_active = job.state.is_active();
        for said in events {
            let before = (job.state, job.reason.clone());
            if !job.take_event(said) {
                continue;
            }
            job.updated = now();
            self.leave_desk(&said.event, &job);
            let notable = before != (job.state, job.reason.clone());
            let entry = match &said.event {
                EventKind::Note { text } => Some(event(
                    "job_note",
                    Some(&job.machine_name),
                    Some(id),
                    plain(text, 500),
                )),
                _ if notable => Some(job_event(&job)),
                _ => None,
            };
            store.update_job(&job, entry.as_ref())?;
            if before.0 != job.state {
                log::info!(
                    "job id={id} machine={} state={} reason={:?}",
                    job.machine_name,
                    job.state,
                    job.reason
                );
            }
        }
        if was_active && !job.state.is_active() {
            if let Some(desk) = &self.desk {
                desk.leave(machine.unsigned_abs());
            }
            self.job_is_over(store.as_ref(), &job)?;
        }
        // A capture ends by the server's word, which its agent asks for itself.
        let captured = job.capture.is_some() && job.state == JobState::Done;
        let over = !job.state.is_active() && !captured;
        Ok(EventsAnswer {
            cancel: over && !events.iter().any(|said| said.event.ends_the_job()),
            // Who compares is in no session, though others of its batch may be.
            session: self
                .sessions
                .status(job.batch)
                .filter(|_| job.needs_session())
                .map(|session| session.session),
        })
    }

    /// Who has begun to compare has its manifest and makes way for the next.
    fn leave_desk(&self, event: &EventKind, job: &Job) {
        let compares = matches!(
            event,
            EventKind::Phase {
                phase: Phase::Surveying,
                ..
            }
        );
        if let Some(desk) = self
            .desk
            .as_ref()
            .filter(|_| compares && !job.needs_session())
        {
            desk.leave(job.machine.unsigned_abs());
        }
    }

    /// The active job of a machine as an order for the agent with this bearer, once its session can be joined.
    fn give_job(
        &self,
        store: &mut dyn Store,
        machine: i64,
        bearer_hash: &str,
    ) -> Result<Option<netflash_pxe::Job>, FleetError> {
        let Some(mut job) = store
            .active_jobs()?
            .into_iter()
            .find(|job| job.machine == machine)
        else {
            return Ok(None);
        };
        if let Some(wish) = job.capture.clone() {
            let order = Order::Capture(CaptureOrder {
                image_name: job.image_name.clone(),
                disk: wish.disk,
                how: wish.how,
                created: job.created,
            });
            self.take(store, &mut job, bearer_hash)?;
            return Ok(Some(netflash_pxe::Job {
                id: job.id,
                order,
                last: wish.last,
            }));
        }
        let image = stored(store, &job)?;
        let compare = image.as_ref().and_then(|image| job.compare_order(image));
        if let Some((order, last)) = compare {
            self.take(store, &mut job, bearer_hash)?;
            return Ok(Some(netflash_pxe::Job {
                id: job.id,
                order: Order::Compare(order),
                last,
            }));
        }
        if let Some(image) = image.as_ref().filter(|_| job.wish.if_different) {
            self.begin_late(store, &mut job, image)?;
        }
        let number = u32::try_from(machine)
            .map_err(|_| FleetError::Refused(format!("machine number {machine} is too large")))?;
        let (Some((session, membership)), Some(image)) =
            (self.sessions.ticket(job.batch, number), image)
        else {
            return Ok(None);
        };
        let seal =
            |membership| self.seal_to_agent(&membership, machine, bearer_hash, session.session);
        let keys = membership.map(seal).transpose()?;
        self.take(store, &mut job, bearer_hash)?;
        let Job { id, wish, .. } = job;
        let flash = FlashOrder {
            image_name: image.name,
            image_id: image.image_id,
            raw_bytes: image.raw_bytes,
            disk: wish.disk,
            session: SessionTicket {
                group: session.group,
                session: session.session,
                verify_key: session.verify_key,
                keys,
            },
            free: wish.free,
            verify: wish.verify,
        };
        let order = if wish.scope.is_plain() {
            Order::Flash(flash)
        } else {
            let scope = wish.scope;
            Order::PartialFlash(PartialFlashOrder { flash, scope })
        };
        Ok(Some(netflash_pxe::Job {
            id,
            order,
            last: wish.last,
        }))
    }

    /// The session of a batch that was ordered *if different* begins when the first machine needs it. It waits for
    /// those that have not compared yet as for machines that boot slowly.
    fn begin_late(
        &self,
        store: &mut dyn Store,
        job: &mut Job,
        image: &StoredImage,
    ) -> Result<(), FleetError> {
        if self.sessions.status(job.batch).is_some() {
            return Ok(());
        }
        let active = store.active_jobs()?;
        let receivers = active.iter().filter(|other| other.batch == job.batch);
        let receivers = u32::try_from(receivers.count()).unwrap_or(u32::MAX);
        let begun = self
            .sessions
            .begin(job.batch, image, receivers, Patience::KeepTrying);
        if let Err(error) = begun {
            job.fail(&error.to_string());
            job.updated = now();
            store.update_job(job, Some(&job_event(job)))?;
        }
        Ok(())
    }

    /// The agent with this bearer takes `job`.
    fn take(
        &self,
        store: &mut dyn Store,
        job: &mut Job,
        bearer_hash: &str,
    ) -> Result<(), FleetError> {
        let before = job.clone();
        job.taken(bearer_hash);
        if *job != before {
            job.updated = now();
            let changed = job.state != before.state;
            store.update_job(job, changed.then(|| job_event(job)).as_ref())?;
        }
        Ok(())
    }

    /// The keys of a session, for the agent with this bearer and for nobody else.
    fn seal_to_agent(
        &self,
        membership: &Membership,
        machine: i64,
        bearer_hash: &str,
        session: u32,
    ) -> Result<SealedKeys, FleetError> {
        let keys = self
            .agent_keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = keys
            .get(&machine)
            .filter(|(bearer, _)| bearer == bearer_hash);
        let (_, agent_key) = known.ok_or(FleetError::Unauthorized)?;
        let sealed = membership.seal_to(agent_key, session);
        sealed
            .map(SealedKeys)
            .map_err(|error| FleetError::Malformed(error.to_string()))
    }
}

/// The image of a job.
fn stored(store: &dyn Store, job: &Job) -> Result<Option<StoredImage>, FleetError> {
    let mut images = store.images()?.into_iter();
    Ok(images.find(|image| image.id == job.image))
}

/// Complete what is known of a machine by what its agent found.
fn learn(machine: &mut Machine, hello: &Hello) {
    let known = &mut machine.identity;
    let short = |text: String| plain(&text, 128);
    if let Some(uuid) = hello.identity.usable_uuid() {
        known.uuid = Some(uuid);
    }
    for (ours, theirs) in [
        (&mut known.serial, &hello.identity.serial),
        (&mut known.board_serial, &hello.identity.board_serial),
    ] {
        if let Some(theirs) = theirs {
            *ours = Some(short(theirs.clone()));
        }
    }
    for mac in hello.identity.usable_macs() {
        if !known.macs.contains(&mac) {
            known.macs.push(mac);
        }
    }
    machine.inventory = Some(cleaned(&hello.inventory));
}

/// An inventory without control characters.
fn cleaned(inventory: &Inventory) -> Inventory {
    let mut clean = inventory.clone();
    let texts = [
        &mut clean.manufacturer,
        &mut clean.product,
        &mut clean.bios_version,
        &mut clean.cpu,
        &mut clean.kernel,
    ];
    for text in texts {
        *text = plain(text, 128);
    }
    for disk in &mut clean.disks {
        disk.path = plain(&disk.path, 64);
        disk.model = plain(&disk.model, 64);
        disk.transport = plain(&disk.transport, 16);
        disk.serial = disk.serial.as_ref().map(|text| plain(text, 128));
        disk.wwn = disk.wwn.as_ref().map(|text| plain(text, 128));
    }
    for nic in &mut clean.nics {
        nic.name = plain(&nic.name, 16);
        nic.driver = plain(&nic.driver, 32);
    }
    for orphan in &mut clean.orphans {
        orphan.bus = plain(&orphan.bus, 16);
        orphan.address = plain(&orphan.address, 64);
        orphan.id = plain(&orphan.id, 64);
    }
    clean
}
