// What must hold of whatever bytes are in the fields that say when to come back.

use mesh_breaker::hints::{Pushback, grpc_pushback, rate_limit, retry_after, retry_hint};
use std::time::{Duration, SystemTime};

pub(crate) fn hints(bytes: &[u8]) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    for cap in [Duration::ZERO, Duration::from_secs(300), Duration::MAX] {
        let after = retry_after(bytes, now, cap);
        assert!(after.is_none_or(|after| after <= cap));
        let pushback = match grpc_pushback(bytes, cap) {
            Pushback::After(after) => Some(after),
            Pushback::Never => None,
        };
        assert!(pushback.is_none_or(|after| after <= cap));
        let limit = rate_limit(bytes, cap);
        assert!(limit.is_none_or(|after| after <= cap));
        // A number is the same in either unit, up to the cap.
        if let (Some(seconds), Some(millis)) = (after, pushback) {
            assert!(millis <= seconds);
        }
        let Ok(value) = http::HeaderValue::from_bytes(bytes) else {
            continue;
        };
        for name in ["retry-after", "grpc-retry-pushback-ms", "ratelimit"] {
            let mut headers = http::HeaderMap::new();
            headers.insert(name, value.clone());
            let hint = retry_hint(&headers, now, cap);
            let alone = match name {
                "retry-after" => after,
                "ratelimit" => limit,
                _ => pushback,
            };
            assert_eq!(hint, alone, "{name}");
        }
    }
}
