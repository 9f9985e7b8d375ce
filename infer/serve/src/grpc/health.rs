//! gRPC's health protocol: the server as a whole, named "" or as the service is, and each model by its name.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::pb::grpc_inference_service_server::SERVICE_NAME;
use crate::oip::ModelRef;
use crate::{Service, ServiceError};

/// How often those who watch look.
const PERIOD: Duration = Duration::from_millis(250);

/// The service of health. Those who watch hear the last of it once `stopped` becomes true.
pub(super) fn server(
    service: Arc<Service>,
    stopped: watch::Receiver<bool>,
) -> HealthServer<HealthService> {
    HealthServer::new(HealthService { service, stopped })
}

/// Looks at the server's state.
#[derive(Debug, Clone)]
pub(super) struct HealthService {
    service: Arc<Service>,
    stopped: watch::Receiver<bool>,
}

impl HealthService {
    /// None for what does not exist.
    fn status(&self, name: &str) -> Option<ServingStatus> {
        let service = &self.service;
        let serves = if name.is_empty() || name == SERVICE_NAME {
            service.is_ready()
        } else {
            match ModelRef::is_ready(&service.models, name, None) {
                Ok(ready) => ready && !service.is_draining(),
                Err(ServiceError::NotFound(_)) => return None,
                Err(_) => false,
            }
        };
        Some(if serves { ServingStatus::Serving } else { ServingStatus::NotServing })
    }
}

/// One who watches.
struct HealthWatcher {
    checks: HealthService,
    name: String,
    told: Option<ServingStatus>,
}

impl HealthWatcher {
    /// The next news, once there are any; none at the end.
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        loop {
            let stopped = *self.checks.stopped.borrow();
            let status = self.checks.status(&self.name).unwrap_or(ServingStatus::ServiceUnknown);
            if self.told != Some(status) {
                self.told = Some(status);
                return Some((Ok(HealthCheckResponse { status: status.into() }), self));
            }
            if stopped {
                return None;
            }
            // Either way it looks again.
            drop(
                tokio::time::timeout(PERIOD, self.checks.stopped.wait_for(|stopped| *stopped))
                    .await,
            );
        }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let name = &request.get_ref().service;
        let unknown =
            || Status::not_found(format!("there is no `{name}`; name a model, or nothing for all"));
        let status = self.status(name).ok_or_else(unknown)?;
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let watcher =
            HealthWatcher { checks: self.clone(), name: request.into_inner().service, told: None };
        Ok(Response::new(Box::pin(unfold(watcher, HealthWatcher::next))))
    }
}
