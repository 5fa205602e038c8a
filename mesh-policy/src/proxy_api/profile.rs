use std::sync::Arc;

use http::uri::Authority;
use linkerd2_proxy_api::destination::{
    self, DestinationProfile, HttpStatusRange, RequestMatch, ResponseMatch, request_match,
    response_match,
};

use super::destination::endpoint;
use super::field::{limit, metadata, required};
use super::retries::budget;
use super::routes::{check_patterns, method};
use super::unsupported::{Converted, Unsupported};
use crate::profile::{
    Profile, ProfileRoute, ResponseClass, ResponseClasses, ResponseCondition, WeightedDst,
};
use crate::route::{Pattern, RequestCondition};
use crate::{Error, StatusSet, Weighted};

/// The profile in `proto`.
///
/// # Errors
///
/// [`Error`] naming the field that is missing or means nothing.
pub fn profile(proto: &DestinationProfile) -> Result<Converted<Profile>, Error> {
    let mut unsupported = Unsupported::default();
    let retries = proto.routes.iter().any(|route| route.is_retryable);
    let mut routes_of = proto.routes.iter();
    unsupported.note(
        routes_of.any(|route| !route.metrics_labels.is_empty()),
        "destination.Route.metrics_labels",
    );
    let endpoint = match &proto.endpoint {
        Some(addr) => Some(endpoint(addr, std::iter::empty(), &mut unsupported)?),
        None => None,
    };
    let meta = |field, proto: &Option<_>| match proto {
        Some(_) => metadata(field, proto).map(Some),
        None => Ok(None),
    };
    let name = &proto.fully_qualified_name;
    let profile = Profile {
        name: (!name.is_empty()).then(|| name.clone()),
        opaque: proto.opaque_protocol,
        endpoint,
        meta: meta(
            "destination.DestinationProfile.parent_ref",
            &proto.parent_ref,
        )?,
        profile_meta: meta(
            "destination.DestinationProfile.profile_ref",
            &proto.profile_ref,
        )?,
        routes: routes(&proto.routes)?,
        // One that nothing uses may be of any kind.
        retry_budget: match &proto.retry_budget {
            Some(proto) if retries => Some(budget(proto)?),
            _ => None,
        },
        dst_overrides: dst_overrides(&proto.dst_overrides)?,
    };
    Ok(unsupported.with(profile))
}

fn routes(proto: &[destination::Route]) -> Result<Vec<ProfileRoute>, Error> {
    let mut conditions = Conditions::default();
    let mut routes = Vec::with_capacity(proto.len().min(MAX_CONDITIONS));
    for route in proto {
        let condition = required("destination.Route.condition", &route.condition)?;
        let mut classes = Vec::with_capacity(route.response_classes.len().min(MAX_CONDITIONS));
        for class in &route.response_classes {
            let condition = required("destination.ResponseClass.condition", &class.condition)?;
            classes.push(ResponseClass {
                condition: conditions.of_response(condition, 0)?,
                is_failure: class.is_failure,
            });
        }
        routes.push(ProfileRoute {
            condition: Arc::new(conditions.of_request(condition, 0)?),
            classes: ResponseClasses::new(&classes),
            retryable: route.is_retryable,
            timeout: limit("destination.Route.timeout", &route.timeout)?,
        });
    }
    Ok(routes)
}

/// The conditions seen so far, which are bounded in number and depth.
#[derive(Debug, Default)]
struct Conditions {
    all: usize,
    patterns: usize,
}

impl Conditions {
    fn of_request(
        &mut self,
        proto: &RequestMatch,
        depth: usize,
    ) -> Result<RequestCondition, Error> {
        use request_match::Match;
        self.count(depth)?;
        let field = "destination.RequestMatch.match";
        Ok(match required(field, &proto.r#match)? {
            Match::All(all) => RequestCondition::All(self.requests(&all.matches, depth)?),
            Match::Any(any) => RequestCondition::Any(self.requests(&any.matches, depth)?),
            Match::Not(other) => {
                RequestCondition::Not(Box::new(self.of_request(other, depth + 1)?))
            }
            Match::Path(path) => {
                self.patterns += 1;
                check_patterns(self.patterns)?;
                RequestCondition::Path(Pattern::new(path.regex.trim())?)
            }
            Match::Method(proto) => RequestCondition::Method(method(proto)?),
        })
    }

    fn requests(
        &mut self,
        all: &[RequestMatch],
        depth: usize,
    ) -> Result<Vec<RequestCondition>, Error> {
        let condition = |proto| self.of_request(proto, depth + 1);
        all.iter().map(condition).collect()
    }

    fn of_response(
        &mut self,
        proto: &ResponseMatch,
        depth: usize,
    ) -> Result<ResponseCondition, Error> {
        use response_match::Match;
        self.count(depth)?;
        let field = "destination.ResponseMatch.match";
        Ok(match required(field, &proto.r#match)? {
            Match::All(all) => ResponseCondition::All(self.responses(&all.matches, depth)?),
            Match::Any(any) => ResponseCondition::Any(self.responses(&any.matches, depth)?),
            Match::Not(other) => {
                ResponseCondition::Not(Box::new(self.of_response(other, depth + 1)?))
            }
            Match::Status(range) => ResponseCondition::Status(statuses(range)?),
        })
    }

    fn responses(
        &mut self,
        all: &[ResponseMatch],
        depth: usize,
    ) -> Result<Vec<ResponseCondition>, Error> {
        let condition = |proto| self.of_response(proto, depth + 1);
        all.iter().map(condition).collect()
    }

    fn count(&mut self, depth: usize) -> Result<(), Error> {
        let too_many = |what, given, max| Err(Error::TooMany { what, given, max });
        self.all += 1;
        if self.all > MAX_CONDITIONS {
            return too_many("conditions in a profile", self.all, MAX_CONDITIONS);
        }
        if depth > MAX_DEPTH {
            return too_many("levels of conditions in a profile", depth, MAX_DEPTH);
        }
        Ok(())
    }
}

/// Where one end is not given, the range is the other alone.
fn statuses(proto: &HttpStatusRange) -> Result<StatusSet, Error> {
    let (min, max) = match (proto.min, proto.max) {
        (0, max) => (max, max),
        (min, 0) => (min, min),
        range => range,
    };
    let mut set = StatusSet::default();
    set.insert("destination.HttpStatusRange", min, max)?;
    Ok(set)
}

fn dst_overrides(proto: &[destination::WeightedDst]) -> Result<Vec<WeightedDst>, Error> {
    if proto.len() > Weighted::<()>::MAX_BACKENDS {
        return Err(Error::TooMany {
            what: "destinations in place of one",
            given: proto.len(),
            max: Weighted::<()>::MAX_BACKENDS,
        });
    }
    let mut overrides = Vec::with_capacity(proto.len());
    for dst in proto.iter().filter(|dst| dst.weight > 0) {
        let field = "destination.WeightedDst.authority";
        let authority = dst.authority.parse::<Authority>().ok();
        let named = authority.is_some_and(|authority| authority.port_u16().is_some());
        if !named {
            let expected = "a name and a port";
            return Err(Error::invalid(field, &dst.authority, expected));
        }
        overrides.push(WeightedDst {
            authority: dst.authority.clone(),
            weight: dst.weight,
            meta: match &dst.backend_ref {
                Some(_) => Some(metadata(
                    "destination.WeightedDst.backend_ref",
                    &dst.backend_ref,
                )?),
                None => None,
            },
        });
    }
    Ok(overrides)
}

/// The most conditions in one profile.
const MAX_CONDITIONS: usize = 4096;

/// How deep conditions may be in each other.
const MAX_DEPTH: usize = 32;
