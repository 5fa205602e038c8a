//! A table of settings is declared once; its flags, its environment variables, its TOML keys, its defaults and its
//! JSON all come from that declaration.

/// Declares a table: the resolved struct and the layer that flags, environment and file fill.
///
/// Each line: `key: Type = default, "flag", "VARIABLE";`. The doc comment is also the flag's help.
macro_rules! table {
    (
        $(#[$table_doc:meta])*
        $table:ident, $layer:ident, $heading:literal {
            $(
                $(#[doc = $doc:literal])*
                $key:ident: $type:ty = $default:expr, $flag:literal, $variable:literal;
            )*
        }
    ) => {
        $(#[$table_doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $table {
            $(
                $(#[doc = $doc])*
                #[doc = concat!("\n\nDefault: `", stringify!($default), "`.")]
                pub $key: $type,
            )*
        }

        #[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, serde::Deserialize)]
        #[command(next_help_heading = $heading)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $layer {
            $(
                $(#[doc = $doc])*
                #[arg(id = $flag, long = $flag, env = $variable, value_name = "VALUE", hide_env_values = true)]
                pub(super) $key: Option<$crate::config::value::Setting<$type>>,
            )*
        }

        impl $layer {
            /// What this layer states, else what the one below states.
            pub(super) fn over(self, below: Self) -> Self {
                Self {
                    $($key: self.$key.or(below.$key),)*
                }
            }

            /// What this layer states, else the defaults.
            pub(super) fn resolve(self) -> $table {
                $table {
                    $($key: self.$key.map_or_else(|| $default, |setting| setting.0),)*
                }
            }
        }

        impl $table {
            /// As `/config` shows it.
            pub(super) fn to_json(&self) -> serde_json::Value {
                let mut json = serde_json::Map::new();
                $(json.insert(
                    stringify!($key).to_owned(),
                    $crate::config::value::Value::to_json(&self.$key),
                );)*
                serde_json::Value::Object(json)
            }
        }

        impl Default for $table {
            fn default() -> Self {
                $layer::default().resolve()
            }
        }
    };
}

pub(super) use table;
