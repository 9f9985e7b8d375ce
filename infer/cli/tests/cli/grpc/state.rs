//! Health and reflection.

use futures_util::stream::{StreamExt, iter};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use super::client::Server;
use super::client::pb::RepositoryModelUnloadRequest;

fn named(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn health_follows_the_models() {
    let server = Server::start(&["--repository"]);
    let mut health = HealthClient::with_origin(server.connect().await, server.origin());
    let names = ["", "inference.GRPCInferenceService", "colors", "colors.encoded"];
    for name in names {
        let status = health.check(named(name)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{name}");
    }
    assert_eq!(health.check(named("gone")).await.unwrap_err().code(), Code::NotFound);
    let mut watch = health.watch(named("colors")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let mut unknown = health.watch(named("gone")).await.unwrap().into_inner();
    assert_eq!(unknown.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    let unload =
        RepositoryModelUnloadRequest { model_name: "colors".to_owned(), ..Default::default() };
    server.client().await.repository_model_unload(unload).await.unwrap();
    for name in names {
        let status = health.check(named(name)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::NotServing, "{name}");
    }
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
}

// While one thread waits for the server, the other drives the connection.
#[tokio::test(flavor = "multi_thread")]
async fn watchers_are_told_of_the_end_and_do_not_delay_it() {
    let mut server = Server::start(&[]);
    let mut health = HealthClient::with_origin(server.connect().await, server.origin());
    let mut watch = health.watch(named("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.terminate();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(watch.message().await.unwrap().is_none());
    assert_eq!(server.wait().code(), Some(0));
    server.until("the end is logged", |server| server.log().contains("all requests were answered"));
}

#[tokio::test]
async fn services_can_be_reflected() {
    let server = Server::start(&[]);
    let services = ["grpc.health.v1.Health", "inference.GRPCInferenceService"];

    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::with_origin(
        server.connect().await,
        server.origin(),
    );
    let answer =
        client.server_reflection_info(iter([request])).await.unwrap().into_inner().next().await;
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        answer.unwrap().unwrap().message_response
    else {
        panic!("no list");
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(services.iter().all(|service| names.contains(service)), "{names:?}");

    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
                services[1].to_owned(),
            ),
        ),
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::with_origin(
        server.connect().await,
        server.origin(),
    );
    let answer =
        client.server_reflection_info(iter([request])).await.unwrap().into_inner().next().await;
    let Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(files)) =
        answer.unwrap().unwrap().message_response
    else {
        panic!("no description");
    };
    assert_eq!(files.file_descriptor_proto.len(), 1);
    let file = String::from_utf8_lossy(&files.file_descriptor_proto[0]).into_owned();
    assert!(file.contains("RepositoryModelUnload") && file.contains("raw_output_contents"));
}
