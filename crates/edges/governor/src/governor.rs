//! All services, as operators see them and order about them.

use std::sync::Arc;
use std::time::Duration;

use hotpair_core::pair::identity::Epoch;
use hotpair_core::services::governed::{Change, Choice, OrderRefused, Side, Wanted};
use hotpair_protocol::{ServiceBody, ServiceMember, ServiceStatus, Services};
use thiserror::Error;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::service::{Order, Records, Service, ServiceSettings};

/// Every service's task. Clones are the same services.
#[derive(Clone, Debug)]
pub struct Governor {
    services: Arc<[Service]>,
    records: Arc<dyn Records>,
}

/// Why an order was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OrderError {
    /// Nothing was done.
    #[error("there is no service {0:?}")]
    NoService(String),
    /// Nothing was done.
    #[error("{0}")]
    Malformed(String),
    /// As it says.
    #[error(transparent)]
    Refused(#[from] OrderRefused),
    /// Nothing was done.
    #[error("too many orders wait for this service, or the process is ending")]
    Busy,
    /// It may still be done.
    #[error("the change was not acknowledged within {0} s; GET /services shows what became of it")]
    TimedOut(u64),
}

impl Governor {
    /// Starts a task for each service on the runtime of the caller. They act while `serving` has an
    /// epoch, and end when its sender is dropped.
    #[must_use]
    pub fn start(
        services: Vec<ServiceSettings>,
        serving: &watch::Receiver<Option<Epoch>>,
        records: Arc<dyn Records>,
    ) -> Self {
        let start = |settings| Service::start(settings, serving.clone(), Arc::clone(&records));
        Self { services: services.into_iter().map(start).collect(), records }
    }

    /// Every service, as it is now.
    #[must_use]
    pub fn list(&self) -> Services {
        Services { services: self.services.iter().map(|service| self.status(service)).collect() }
    }

    /// Carries an order out, or says why not; what it came to.
    pub async fn order(&self, name: &str, body: &ServiceBody) -> Result<String, OrderError> {
        let service = self.services.iter().find(|service| service.settings.name == name);
        let service = service.ok_or_else(|| OrderError::NoService(name.to_owned()))?;
        let change = change(body).map_err(OrderError::Malformed)?;
        let (answer, answered) = oneshot::channel();
        let order = Order { change, answer };
        service.orders.try_send(order).map_err(|_| OrderError::Busy)?;
        match timeout(ORDER_LIMIT, answered).await {
            Ok(Ok(outcome)) => Ok(done(name, &outcome?)),
            Ok(Err(_)) => Err(OrderError::Busy),
            Err(_) => Err(OrderError::TimedOut(ORDER_LIMIT.as_secs())),
        }
    }

    fn status(&self, service: &Service) -> ServiceStatus {
        let settings = &service.settings;
        let row = self.records.row(&settings.name);
        let now = service.now();
        let governed = service.governed();
        let governing = governed.is_governing();
        // Where this node does not serve, the row is what is true; its own memory is old.
        let known = row.filter(|_| !governing);
        let known = known.and_then(|row| Choice::resumed(&row, &settings.members).ok());
        let choice = match known {
            Some(choice) => choice,
            None if governing => governed.choice().clone(),
            None => Choice::first(settings.members.clone()),
        };
        let member = |side| {
            let view = governed.member(side);
            ServiceMember {
                member: side.to_string(),
                address: choice.members.at(side).to_string(),
                active: choice.active == Some(side),
                health: view.health.to_string(),
                since_ms: governing.then(|| now.ms_since(view.since)),
                checks: view.checks,
                failed: u64::from(view.failed),
                why: view.why.clone(),
            }
        };
        let since_ms = governing.then(|| now.ms_since(governed.since()));
        ServiceStatus {
            name: settings.name.clone(),
            policy: ACTIVE_STANDBY.to_owned(),
            primary: choice.members.primary.to_string(),
            standby: choice.members.standby.to_string(),
            active: choice.active.map(|side| side.to_string()),
            active_address: choice.active_address().map(ToString::to_string),
            since_ms: since_ms.filter(|_| choice.active.is_some()),
            held: choice.held,
            governing,
            why: governed.why(),
            check: settings.check.word().to_owned(),
            interval_ms: u64::try_from(settings.interval.as_millis()).unwrap_or(u64::MAX),
            proxy: service.front.as_ref().map(|front| front.status()),
            members: vec![member(Side::Primary), member(Side::Standby)],
        }
    }
}

/// The public words as an order of the machine.
fn change(body: &ServiceBody) -> Result<Change, String> {
    if let Some(policy) = body.policy.as_ref().filter(|policy| *policy != ACTIVE_STANDBY) {
        return Err(format!("policy = {policy:?}: there is only {ACTIVE_STANDBY:?}"));
    }
    let address = |key: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|error| format!("{key} = {error}")),
    };
    let active = match body.active.as_deref() {
        None => None,
        Some("primary") => Some(Wanted::Side(Side::Primary)),
        Some("standby") => Some(Wanted::Side(Side::Standby)),
        Some(text) => match text.parse() {
            Ok(address) => Some(Wanted::Address(address)),
            Err(_) => {
                return Err(format!(
                    "active = {text:?}: write primary, standby or the address of one of them"
                ));
            }
        },
    };
    Ok(Change {
        primary: address("primary", &body.primary)?,
        standby: address("standby", &body.standby)?,
        active,
        force: body.force,
    })
}

fn done(name: &str, choice: &Choice) -> String {
    let members = &choice.members;
    let active = choice.active.map_or("none yet".to_owned(), |side| side.to_string());
    format!("{name}: primary {}, standby {}, active: {active}", members.primary, members.standby)
}

const ACTIVE_STANDBY: &str = "active-standby";
/// How long an order is waited for.
const ORDER_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
