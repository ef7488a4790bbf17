//! A sequence of launches as a captured graph: a second stream forks from the driver's own by events and joins
//! it again.

use anyhow::Result;

use super::CudaDriver;
use super::events::Events;
use crate::device::gpu::branches::Place;
use crate::device::gpu::launch::Launch;

/// The events between two branches.
pub struct Joints {
    events: Events,
    /// The event behind each launch, if the other branch waits for it.
    behind: Vec<Option<usize>>,
    /// The last launch aside, if there is one.
    last_aside: Option<usize>,
}

/// The event from which the branch aside takes part in the capture.
const FORK: usize = 0;

impl Joints {
    /// Events for these places; none where there is one branch.
    ///
    /// # Errors
    /// The driver's.
    pub fn of(places: &[Place]) -> Result<Self> {
        let last_aside = places.iter().rposition(|place| place.aside);
        let mut behind = vec![None; places.len()];
        let mut count = FORK + 1;
        for number in places.iter().filter_map(|place| place.after).chain(last_aside) {
            behind[number].get_or_insert_with(|| {
                count += 1;
                count - 1
            });
        }
        let events = Events::untimed(if last_aside.is_some() { count } else { 0 })?;
        Ok(Self { events, behind, last_aside })
    }
}

impl CudaDriver {
    /// Puts launches into the streams of their branches, with what they wait for; afterwards the driver's own
    /// stream has waited for all.
    ///
    /// # Errors
    /// The driver's.
    pub(super) fn submit_all(
        &mut self,
        launches: &[Launch],
        places: &[Place],
        Joints { events, behind, last_aside }: &mut Joints,
    ) -> Result<()> {
        if last_aside.is_some() {
            events.record(FORK, self.stream)?;
            events.wait(FORK, self.aside)?;
        }
        for ((launch, place), behind_it) in launches.iter().zip(places).zip(&*behind) {
            let stream = if place.aside { self.aside } else { self.stream };
            if let Some(event) = place.after.and_then(|after| behind[after]) {
                events.wait(event, stream)?;
            }
            self.submit(launch, stream)?;
            if let Some(event) = *behind_it {
                events.record(event, stream)?;
            }
        }
        match last_aside.and_then(|last| behind[last]) {
            Some(event) => events.wait(event, self.stream),
            None => Ok(()),
        }
    }
}
