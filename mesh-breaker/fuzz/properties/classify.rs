// What must hold of whatever a response says of itself: two bytes of status, one of choices, then a value for each field.

use http::{HeaderMap, HeaderValue, StatusCode};
use mesh_breaker::{
    AtHeaders, AutoClassifier, Classify, GrpcClassifier, HttpClassifier, Outcome, grpc_status,
};
use std::time::{Duration, SystemTime};

pub(crate) fn classify(bytes: &[u8]) {
    let [high, low, rest @ ..] = bytes else {
        return;
    };
    let Ok(status) = StatusCode::from_u16(u16::from_be_bytes([*high, *low])) else {
        return;
    };
    let mut fields = HeaderMap::new();
    for (name, value) in FIELDS.into_iter().zip(rest.split(|byte| *byte == 0)) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            fields.insert(name, value);
        }
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    if let Some(code) = grpc_status(&fields) {
        assert!(code <= 16, "gRPC has no status {code}");
    }
    follow(
        &HttpClassifier::default().hint_cap(CAP),
        status,
        &fields,
        now,
    );
    follow(
        &GrpcClassifier::default().hint_cap(CAP),
        status,
        &fields,
        now,
    );
    follow(
        &GrpcClassifier::published().hint_cap(CAP),
        status,
        &fields,
        now,
    );
    follow(&AutoClassifier::default(), status, &fields, now);
}

fn follow(classify: &impl Classify, status: StatusCode, fields: &HeaderMap, now: SystemTime) {
    let outcomes = [
        match classify.at_headers(status, fields, now) {
            AtHeaders::Decided(outcome) => outcome,
            AtHeaders::AwaitEnd => classify.at_end(Some(fields), now),
        },
        classify.at_end(None, now),
    ];
    for outcome in outcomes {
        assert_ne!(outcome, Outcome::Cancelled, "it was answered");
        assert!(outcome.retry_after().is_none_or(|after| after <= LONGEST));
    }
}

const FIELDS: [&str; 5] = [
    "content-type",
    "grpc-status",
    "retry-after",
    "grpc-retry-pushback-ms",
    "ratelimit",
];
const CAP: Duration = Duration::from_secs(60);
/// What is believed where nothing else is said.
const LONGEST: Duration = mesh_breaker::hints::DEFAULT_CAP;
