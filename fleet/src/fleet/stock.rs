//! What is there: machines and images, entered and listed.

use std::path::Path;

use serde::{Deserialize, Serialize};

use netflash_imager::{ExtentKind, Image};
use netflash_pxe::{Hex32, is_bad_uuid};

use super::{Fleet, FleetError, event, find_image, find_machine, now};
use crate::machine::{ImageState, Machine, MachineChange, NewMachine, Sighting, StoredImage};
use crate::power;
use crate::store::Store;

/// Ways to switch one machine.
const POWER_MAX: usize = 8;

/// An image to be entered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewImage {
    /// Where the file lies, on the server, as an absolute path.
    pub(crate) path: String,
    /// Its name here.
    pub(crate) name: String,
}

impl Fleet {
    /// All machines.
    pub(crate) fn machines(&self) -> Result<Vec<Machine>, FleetError> {
        Ok(self.store().machines()?)
    }

    /// A machine by its name.
    pub(crate) fn machine(&self, name: &str) -> Result<Machine, FleetError> {
        find_machine(self.store().machines()?, name)
    }

    /// Strangers that asked for something to boot.
    pub(crate) fn sightings(&self) -> Result<Vec<Sighting>, FleetError> {
        Ok(self.store().sightings()?)
    }

    /// Enter a machine. It must be possible to tell it apart from every other.
    pub(crate) fn add_machine(&self, new: &NewMachine) -> Result<Machine, FleetError> {
        let mut store = self.store();
        self.check_new(store.as_ref(), new)?;
        let entered = event("machine_added", Some(&new.name), None, "");
        let machine = store.add_machine(new, &entered)?;
        for mac in &new.macs {
            store.unsight(&mac.to_string())?;
        }
        Ok(machine)
    }

    /// Change what is known of a machine.
    pub(crate) fn change_machine(
        &self,
        name: &str,
        change: &MachineChange,
    ) -> Result<Machine, FleetError> {
        let mut store = self.store();
        let mut machine = find_machine(store.machines()?, name)?;
        if let Some(kernel) = &change.kernel {
            Machine::check_kernel(kernel).map_err(FleetError::Refused)?;
            machine.kernel.clone_from(kernel);
            let changed = event(
                "machine_changed",
                Some(name),
                None,
                format!("kernel parameters: {kernel}"),
            );
            store.update_machine(&machine, Some(&changed))?;
        }
        Ok(machine)
    }

    fn check_new(&self, store: &dyn Store, new: &NewMachine) -> Result<(), FleetError> {
        let refuse = |text: String| Err(FleetError::Refused(text));
        if !Machine::is_name(&new.name) {
            return refuse(format!(
                "{:?} is no name; use up to {} letters, digits, '.', '_' and '-'",
                new.name,
                Machine::NAME_MAX
            ));
        }
        if let Some(mac) = new.macs.iter().find(|mac| !mac.names_a_machine()) {
            return refuse(format!("{mac} cannot tell machines apart"));
        }
        if let Some(uuid) = &new.uuid
            && is_bad_uuid(uuid)
        {
            return refuse(format!(
                "{uuid:?} is no UUID, or one that many boards share"
            ));
        }
        if new.macs.is_empty() && new.uuid.is_none() {
            return refuse(format!(
                "{}: a MAC address or a UUID is needed to know it by",
                new.name
            ));
        }
        if new.power.len() > POWER_MAX {
            return refuse(format!(
                "{}: more than {POWER_MAX} power settings",
                new.name
            ));
        }
        for power in &new.power {
            power::find(&self.config.power, power)
                .map_err(|error| FleetError::Refused(error.to_string()))?;
        }
        Machine::check_kernel(&new.kernel).map_err(FleetError::Refused)?;
        if let Some(group) = new.groups.iter().find(|group| !Machine::is_name(group)) {
            return refuse(format!("{group:?} is no name of a group"));
        }
        for other in store.machines()? {
            if let Some(mac) = new
                .macs
                .iter()
                .find(|mac| other.identity.macs.contains(mac))
            {
                return refuse(format!("{mac} is an address of {} already", other.name));
            }
            let uuid = new.uuid.as_ref().map(|uuid| uuid.to_ascii_lowercase());
            if uuid.is_some() && other.identity.usable_uuid() == uuid {
                return refuse(format!("{} has this UUID already", other.name));
            }
        }
        Ok(())
    }

    /// Forget a machine.
    pub(crate) fn remove_machine(&self, name: &str) -> Result<(), FleetError> {
        let mut store = self.store();
        let machine = find_machine(store.machines()?, name)?;
        if let Some(job) = store
            .active_jobs()?
            .into_iter()
            .find(|job| job.machine == machine.id)
        {
            return Err(FleetError::Refused(format!(
                "{name} has the active job {}; cancel it first",
                job.id
            )));
        }
        store.remove_machine(machine.id, &event("machine_removed", Some(name), None, ""))?;
        self.switchboard.machine_gone(machine.id);
        Ok(())
    }

    /// All images.
    pub(crate) fn images(&self) -> Result<Vec<StoredImage>, FleetError> {
        Ok(self.store().images()?)
    }

    /// An image by its name.
    pub(crate) fn image(&self, name: &str) -> Result<StoredImage, FleetError> {
        find_image(self.store().images()?, name)
    }

    /// Enter an image that lies on the server's disk. It stays where it is.
    pub(crate) fn add_image(&self, new: &NewImage) -> Result<StoredImage, FleetError> {
        let path = Path::new(&new.path);
        if !path.is_absolute() {
            return Err(FleetError::Refused(format!(
                "{:?} is no absolute path",
                new.path
            )));
        }
        let name = &new.name;
        if !Machine::is_name(name) {
            return Err(FleetError::Refused(format!(
                "{name:?} is no name for an image"
            )));
        }
        let row = described(path, name)?;
        let entered = event(
            "image_added",
            None,
            None,
            format!("{name} {}", row.image_id),
        );
        Ok(self.store().add_image(&row, &entered)?)
    }
}

/// The image at `path` as a row of the store.
pub(super) fn described(path: &Path, name: &str) -> Result<StoredImage, FleetError> {
    let refused =
        |error: &dyn std::fmt::Display| FleetError::Refused(format!("{}: {error}", path.display()));
    let image = Image::open(path).map_err(|error| refused(&error))?;
    let stored_bytes = path.metadata().map_err(|error| refused(&error))?.len();
    let text = path.to_str().ok_or_else(|| refused(&"is not UTF-8"))?;
    let manifest = image.manifest();
    Ok(StoredImage {
        id: 0,
        name: name.to_owned(),
        image_id: Hex32(image.id().0),
        path: text.to_owned(),
        raw_bytes: manifest.raw_bytes(),
        used_bytes: manifest.extents().bytes_of(ExtentKind::Used),
        stored_bytes,
        min_target_bytes: manifest.min_target_bytes(),
        created: now(),
        state: ImageState::Ready,
    })
}
