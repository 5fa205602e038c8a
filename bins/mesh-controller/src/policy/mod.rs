//! What a proxy may and should do with a connection: `OutboundPolicies` and `InboundServerPolicies`.

mod annotations;
mod balancing;
mod default_policy;
mod inbound;
mod outbound;
mod protocol;

pub(crate) use self::{
    annotations::AnnotationError, inbound::InboundPolicies, outbound::OutboundPolicies,
};
pub(crate) use self::{
    annotations::annotation_errors,
    protocol::{PortProtocol, is_server_first, port_protocol},
};
