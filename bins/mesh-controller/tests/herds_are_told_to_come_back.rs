//! Beyond its limits, a controller says so and when to ask again; what it serves it goes on serving.

// Functions beside the tests may panic as the tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use linkerd2_proxy_api::destination::{
    GetDestination, Update, destination_client::DestinationClient,
};
use support::{Controller, service, within, workload};
use tonic::{Code, Status, Streaming, transport::Channel};

async fn watch(channel: Channel) -> Result<Streaming<Update>, Status> {
    let request = GetDestination {
        path: "web.default:80".into(),
        ..GetDestination::default()
    };
    let response = within(DestinationClient::new(channel).get(request)).await?;
    let mut stream = response.into_inner();
    within(stream.message()).await?;
    Ok(stream)
}

/// Asks until there is a place again.
async fn watch_in_the_end(controller: &Controller) -> Streaming<Update> {
    within(async {
        loop {
            if let Ok(stream) = watch(controller.proxy_api()).await {
                return stream;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_until_one_ends() {
    let manifests = [("web.yaml", service("web", ""))];
    let manifests = manifests.each_ref().map(|(n, t)| (*n, t.as_str()));
    let controller = Controller::start(&manifests, &["--max-streams", "2"]).await;
    let mut first = watch(controller.proxy_api()).await.unwrap();
    let second = watch(controller.proxy_api()).await.unwrap();
    let refused = watch(controller.proxy_api()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("max-streams"), "{refused}");
    assert_eq!(
        refused.metadata().get("grpc-retry-pushback-ms").unwrap(),
        "1000"
    );

    drop(second);
    let _third = watch_in_the_end(&controller).await;
    controller.write("1.yaml", &workload("web", 1));
    within(first.message()).await.unwrap().unwrap();
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_until_one_ends() {
    let controller = Controller::start(&[], &["--max-connections", "1"]).await;
    let only = controller.proxy_api();
    let stream = watch(only.clone()).await.unwrap();
    watch(controller.proxy_api()).await.unwrap_err();
    watch(only.clone()).await.unwrap();
    drop((stream, only));
    watch_in_the_end(&controller).await;
}
