//! The driver's task, and what remains of the driver when the task ends before its time.

use std::sync::Arc;

use super::Driver;
use crate::fleet::shared::{FleetShared, Shutdown};
use crate::runtime::BoxFuture;
use crate::store::StoreError;
use crate::sync::unwind::catch;
use crate::sync::{Mutex, lock};

/// A driver without a task: its runtime has ended, or did not take the task.
pub(in crate::fleet) type ParkedDriver = Mutex<Option<Box<Driver>>>;

/// Owns the driver while its task exists. Dropped before the driver has ended, it parks the driver.
pub(in crate::fleet) struct DriverTask {
    driver: Option<Box<Driver>>,
    shared: Arc<FleetShared>,
    started: bool,
    /// Whether the driver had a task before.
    resumed: bool,
}

impl DriverTask {
    /// Spawns a task for `driver`. Returns whether the runtime took it.
    pub(in crate::fleet) fn spawn(driver: Box<Driver>, resumed: bool) -> bool {
        let shared = Arc::clone(&driver.shared);
        let task = Self {
            driver: Some(driver),
            shared: Arc::clone(&shared),
            started: false,
            resumed,
        };
        let task: BoxFuture<'static, ()> = Box::pin(task.run());
        let spawned = catch(|| shared.runtime.spawn(task).is_ok()).unwrap_or(false);
        // A runtime that has ended may accept the task and drop it.
        spawned && lock(&shared.parked_driver).is_none()
    }

    async fn run(mut self) {
        self.started = true;
        let Some(driver) = &mut self.driver else {
            return;
        };
        let flushing = self.shared.shutdown() == Some(Shutdown::Flush);
        if !self.resumed || flushing || driver.back_off().await {
            driver.run().await;
        }
        driver.end();
        self.driver = None;
    }
}

impl Drop for DriverTask {
    fn drop(&mut self) {
        let Some(mut driver) = self.driver.take() else {
            return;
        };
        // The runtime may be unusable, and this may run during a panic. A panic of the clock or of
        // an observer must not lose the driver.
        if self.started {
            catch(|| {
                driver.members.on_task_ended();
                driver.report_degraded(StoreError::unavailable(
                    "the task of the fleet's driver has ended, usually with its runtime; it starts \
                     again on the next runtime that is used",
                ));
            });
        }
        catch(|| self.shared.park(driver));
    }
}

impl FleetShared {
    fn park(&self, driver: Box<Driver>) {
        *lock(&self.parked_driver) = Some(driver);
        if self.shutdown().is_some() {
            self.end_parked();
        }
    }

    /// Starts a new task for a parked driver. Returns `false` if the runtime does not take it.
    pub(in crate::fleet) fn resume_driver(&self) -> bool {
        let parked = lock(&self.parked_driver).take();
        parked.is_none_or(|driver| DriverTask::spawn(driver, true))
    }

    /// Ends a parked driver.
    pub(in crate::fleet) fn end_parked(&self) {
        let parked = lock(&self.parked_driver).take();
        if let Some(mut driver) = parked {
            driver.end();
        }
    }
}
