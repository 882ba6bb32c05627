//! `/services`: servers of other people that the serving node looks after. Shown from either node,
//! changed at the one that serves.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use hotpair_http::{Request, Response, StatusCode};
use hotpair_protocol::{ServiceBody, Services};

use crate::service::{AdminState, no_token_configured, token_needed, told};
use crate::tokens::Permission;

/// What an order about a service came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceOutcome {
    /// Done; what it came to.
    Done(String),
    /// There is no such service.
    Unknown(String),
    /// The order cannot be meant.
    Malformed(String),
    /// It was not carried out, for this reason.
    Refused(String),
    /// Nothing was done, or its end was not waited for, as it says.
    Unavailable(String),
}

/// Carrying out of an order, under way.
pub type ServiceOrder = Pin<Box<dyn Future<Output = ServiceOutcome> + Send>>;

/// Who looks after the services. A list is given at once, from any thread; an order ends within the
/// time that an operator waits.
pub trait GovernedServices: Send + Sync + fmt::Debug + 'static {
    /// All of them, as they are now.
    fn list(&self) -> Services;

    /// Changes one.
    fn order(self: Arc<Self>, name: String, body: ServiceBody) -> ServiceOrder;
}

/// The service that a path names.
pub(crate) fn named(path: &str) -> Option<&str> {
    path.strip_prefix("/services/").filter(|name| !name.is_empty() && !name.contains('/'))
}

/// `POST /services/<name>`.
pub(crate) async fn order(state: &AdminState, name: &str, request: &Request) -> Response {
    match state.tokens.may_order(request) {
        Permission::Granted => {}
        Permission::TokenNeeded => return token_needed(),
        Permission::NoTokenConfigured => return no_token_configured(),
    }
    let body = match serde_json::from_slice::<ServiceBody>(&request.body) {
        Ok(body) => body,
        Err(error) => return told(StatusCode::BAD_REQUEST, Err(format!("the body: {error}"))),
    };
    tracing::info!(by = %request.from, service = name, ?body, "a change of a service was ordered");
    let services = Arc::clone(&state.services);
    match services.order(name.to_owned(), body).await {
        ServiceOutcome::Done(text) => told(StatusCode::OK, Ok(text)),
        ServiceOutcome::Unknown(text) => told(StatusCode::NOT_FOUND, Err(text)),
        ServiceOutcome::Malformed(text) => told(StatusCode::BAD_REQUEST, Err(text)),
        ServiceOutcome::Refused(text) => told(StatusCode::CONFLICT, Err(text)),
        ServiceOutcome::Unavailable(text) => told(StatusCode::SERVICE_UNAVAILABLE, Err(text)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use hotpair_protocol::ServiceStatus;

    use super::*;

    /// A service `gyro` whose standby is down.
    #[derive(Debug)]
    pub(crate) struct OneService;

    impl GovernedServices for OneService {
        fn list(&self) -> Services {
            let gyro = ServiceStatus { name: "gyro".to_owned(), ..ServiceStatus::default() };
            Services { services: vec![gyro] }
        }

        fn order(self: Arc<Self>, name: String, body: ServiceBody) -> ServiceOrder {
            Box::pin(async move {
                match (name.as_str(), body.active.as_deref()) {
                    ("gyro", Some("standby")) => ServiceOutcome::Refused("it is down".to_owned()),
                    ("gyro", _) => ServiceOutcome::Done(format!("{body:?}")),
                    _ => ServiceOutcome::Unknown(format!("there is no service {name:?}")),
                }
            })
        }
    }

    #[test]
    fn a_path_names_one_service() {
        assert_eq!(named("/services/gyro"), Some("gyro"));
        for none in ["/services", "/services/", "/services/a/b", "/role"] {
            assert_eq!(named(none), None);
        }
    }
}
