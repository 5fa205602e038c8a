//! `mesh token`.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use crate::admin::Admin;
use crate::args::{Token, TokenAction};
use crate::output::{Output, Table};
use crate::{Error, data, duration, stock_proxy};

pub(crate) async fn run(options: Token) -> Result<ExitCode, Error> {
    let Some(action) = options.action else {
        return stock_proxy::run(options.stock_proxy).await;
    };
    let mut output = Output::new();
    match action {
        TokenAction::Create {
            identity,
            lifetime,
            controller,
            data,
        } => {
            let admin = Admin::connect(&data::find(data.data)?).await?;
            let token = admin.issue_token(&identity, lifetime, controller).await?;
            // Only the token on standard output, so that it can be put into a file.
            output.line(&token.token);
            eprintln!(
                "token {} for {identity}, good for {}",
                token.id,
                left(token.expires_at, SystemTime::now())
            );
        }
        TokenAction::List { data } => {
            let admin = Admin::connect(&data::find(data.data)?).await?;
            let now = SystemTime::now();
            let mut table = Table::new(&["ID", "IDENTITY", "EXPIRES IN"]);
            for token in admin.tokens().await? {
                table.row([token.id, token.identity, left(token.expires_at, now)]);
            }
            if table.is_empty() {
                eprintln!("no tokens");
            } else {
                output.table(&table);
            }
        }
        TokenAction::Revoke { id, data } => {
            let admin = Admin::connect(&data::find(data.data)?).await?;
            admin.revoke_token(&id).await?;
            eprintln!("token {id} is revoked");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How long until `time`, for people.
pub(crate) fn left(time: Option<prost_types::Timestamp>, now: SystemTime) -> String {
    remaining(time, now).map_or_else(|| "nothing".to_owned(), duration::show)
}

/// How long until `time`; nothing when it has passed or was not said.
pub(crate) fn remaining(time: Option<prost_types::Timestamp>, now: SystemTime) -> Option<Duration> {
    SystemTime::try_from(time?).ok()?.duration_since(now).ok()
}
