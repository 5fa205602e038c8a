//! Settings with a shape of their own.

use std::net::SocketAddr;

use mesh_policy::inbound::DefaultPolicy;
use serde_json::{Value as Json, json};

use super::value::{Value, kind};

/// One mesh port and the application port behind it. As text: `LISTEN=APP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortMap {
    /// Where the mesh connects to.
    pub listen: SocketAddr,
    /// Where the application listens. Its port is the one the controller is asked about.
    pub app: SocketAddr,
}

impl Value for PortMap {
    fn parse(text: &str) -> Result<Self, String> {
        let (listen, app) = text.split_once('=').ok_or_else(|| {
            format!("expected LISTEN=APP, as in 127.0.0.2:14143=127.0.0.2:8080, found {text:?}")
        })?;
        Ok(Self {
            listen: SocketAddr::parse(listen.trim())?,
            app: SocketAddr::parse(app.trim())?,
        })
    }

    fn from_toml(value: toml::Value) -> Result<Self, String> {
        let (listen, app) = pair(value, "app")?;
        Ok(Self {
            listen: SocketAddr::parse(&listen)?,
            app: SocketAddr::parse(&app)?,
        })
    }

    fn to_json(&self) -> Json {
        json!({"listen": self.listen.to_string(), "app": self.app.to_string()})
    }
}

/// A loopback listener whose connections all go to one service. As text: `LISTEN=AUTHORITY`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceListener {
    /// Where the application connects to.
    pub listen: SocketAddr,
    /// The service, as `host:port`, in lower case.
    pub authority: String,
}

impl ServiceListener {
    fn new(listen: &str, authority: &str) -> Result<Self, String> {
        Ok(Self {
            listen: SocketAddr::parse(listen.trim())?,
            authority: authority_of(authority.trim())?,
        })
    }
}

impl Value for ServiceListener {
    fn parse(text: &str) -> Result<Self, String> {
        let (listen, authority) = text.split_once('=').ok_or_else(|| {
            format!("expected LISTEN=AUTHORITY, as in 127.0.0.2:15001=web.default.svc.cluster.local:80, found {text:?}")
        })?;
        Self::new(listen, authority)
    }

    fn from_toml(value: toml::Value) -> Result<Self, String> {
        let (listen, authority) = pair(value, "authority")?;
        Self::new(&listen, &authority)
    }

    fn to_json(&self) -> Json {
        json!({"listen": self.listen.to_string(), "authority": self.authority})
    }
}

impl Value for DefaultPolicy {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            format!("expected one of {names}, found {text:?}")
        })
    }

    fn to_json(&self) -> Json {
        Json::from(self.as_str())
    }
}

/// PEM text. Public, but long: `/config` shows only that it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pem(pub String);

impl Value for Pem {
    fn parse(text: &str) -> Result<Self, String> {
        if !text.contains("-----BEGIN CERTIFICATE-----") {
            return Err("expected PEM text with at least one CERTIFICATE".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    fn to_json(&self) -> Json {
        Json::from(format!(
            "{} certificates",
            self.0.matches("-----BEGIN CERTIFICATE-----").count()
        ))
    }
}

/// The two strings of an inline table `{listen = "..", <other> = ".."}`.
fn pair(value: toml::Value, other: &str) -> Result<(String, String), String> {
    let form = || format!("expected {{listen = \"IP:PORT\", {other} = \"..\"}}");
    let toml::Value::Table(mut table) = value else {
        return Err(format!("{}, found {}", form(), kind(&value)));
    };
    let mut take = |key: &str| match table.remove(key) {
        Some(toml::Value::String(text)) => Ok(text),
        Some(wrong) => Err(format!("{}: {key} is {}", form(), kind(&wrong))),
        None => Err(format!("{}: {key} is missing", form())),
    };
    let both = (take("listen")?, take(other)?);
    match table.keys().next() {
        Some(unknown) => Err(format!("{}: unknown key {unknown:?}", form())),
        None => Ok(both),
    }
}

fn authority_of(text: &str) -> Result<String, String> {
    let wrong = || {
        format!(
            "expected a host with a port, as in web.default.svc.cluster.local:80, found {text:?}"
        )
    };
    let authority: http::uri::Authority = text.parse().map_err(|_| wrong())?;
    if authority.port_u16().is_none()
        || authority.as_str().contains('@')
        || authority.host().is_empty()
    {
        return Err(wrong());
    }
    Ok(authority.as_str().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_read_from_text_and_toml() {
        let map = PortMap::parse("127.77.0.2:14143=127.77.0.2:8080").unwrap();
        assert_eq!(map.app.port(), 8080);
        let table: toml::Value = toml::Value::Table(
            toml::from_str(
                r#"listen = "127.0.0.1:1"
authority = "Web:80""#,
            )
            .unwrap(),
        );
        assert_eq!(
            ServiceListener::from_toml(table).unwrap().authority,
            "web:80"
        );
        for wrong in [
            "127.0.0.1:1",
            "=",
            "127.0.0.1:1=web",
            "127.0.0.1:1=u@web:80",
            "x=web:80",
            "127.0.0.1:1=:80",
        ] {
            assert!(ServiceListener::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_inline_table_says_which_key() {
        let table = |text: &str| {
            PortMap::from_toml(toml::Value::Table(toml::from_str(text).unwrap())).unwrap_err()
        };
        assert!(table("listen = \"127.0.0.1:1\"").contains("app is missing"));
        assert!(table("listen = 1").contains("listen is the integer 1"));
        assert!(
            table("listen = \"127.0.0.1:1\"\napp = \"127.0.0.1:2\"\nport = 3")
                .contains("unknown key \"port\"")
        );
    }

    #[test]
    fn policies_have_linkerds_names() {
        for policy in DefaultPolicy::ALL {
            assert_eq!(DefaultPolicy::parse(policy.as_str()), Ok(policy));
        }
        assert!(
            DefaultPolicy::parse("allow")
                .unwrap_err()
                .contains("cluster-authenticated")
        );
    }
}
