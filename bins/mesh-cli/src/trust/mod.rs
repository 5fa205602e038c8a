//! `mesh trust`: how the roots of trust stand, and an operator's words about them. Nothing that could hurt is done before it
//! was shown what it does.

mod audit;
mod root;
mod show;

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use mesh_control_api::admin::change_trust_request::Word;
use mesh_control_api::admin::{
    AbortTrust, CarryTrust, DeclareLeft, LeaveBehind, PauseTrust, RestoredTrust, ResumeTrust,
    RotateTrust, TaintTrust, Trust, TrustAnchor,
};

use crate::admin::Admin;
use crate::args::{Trust as Options, TrustAction};
use crate::output::Output;
use crate::{Error, data};

pub(crate) async fn run(options: Options) -> Result<ExitCode, Error> {
    if let TrustAction::SignIssuer {
        root,
        request,
        out,
        lifetime,
    } = options.action
    {
        return root::sign_issuer(&root, &request, &out, lifetime, SystemTime::now());
    }
    let folder = data::find(options.data)?;
    let admin = Admin::connect(&folder).await?;
    let mut output = Output::new();
    let json = options.json;
    match options.action {
        TrustAction::Status { watch: false } => {
            print(&mut output, &admin.trust().await?, json);
        }
        TrustAction::Status { watch: true } => {
            let each = |trust: &Trust| {
                if !json && output.is_terminal() {
                    output.line("\x1b[2J\x1b[H");
                }
                print(&mut output, trust, json);
                true
            };
            admin.follow_trust(each).await?;
        }
        TrustAction::Plan { issuer_only } => {
            let plan = admin.plan_trust(issuer_only).await?;
            if json {
                output.line(&show::plan_json(&plan).to_string());
            } else {
                show::plan(&mut output, &plan, SystemTime::now());
            }
        }
        TrustAction::Rotate {
            issuer_only,
            no_wait,
            yes,
        } => return rotate(&admin, &mut output, issuer_only, no_wait, yes, json).await,
        TrustAction::Pause => admin.change_trust(Word::Pause(PauseTrust {})).await?,
        TrustAction::Resume => admin.change_trust(Word::Resume(ResumeTrust {})).await?,
        TrustAction::Abort { yes } => {
            let trust = admin.trust().await?;
            print(&mut output, &trust, false);
            let what = "The change goes back to where it began, by the same gates; what was signed meanwhile is waited for.";
            if agreed(what, yes)? {
                admin.change_trust(Word::Abort(AbortTrust {})).await?;
            }
        }
        TrustAction::Taint { anchor, yes } => {
            let what = format!(
                "Nothing is signed with anchor {anchor} from then on. Where it is the one in use, certificates that end are not \
                 renewed until there is another: run `mesh trust rotate` at once. That change cuts connections and waits for \
                 nobody's leaf to end."
            );
            if agreed(&what, yes)? {
                admin
                    .change_trust(Word::Taint(TaintTrust { anchor }))
                    .await?;
            }
        }
        TrustAction::LeaveBehind { workloads, yes } => {
            let what = format!(
                "These are quarantined: they get no certificate and nobody accepts the one they have, until they have joined \
                 again: {}",
                workloads.join(", ")
            );
            if agreed(&what, yes)? {
                let word = Word::LeaveBehind(LeaveBehind { workloads });
                admin.change_trust(word).await?;
            }
        }
        TrustAction::Restored { yes } => {
            let what = "Nothing is signed until every workload was heard, or its lease has ended; then a bundle of all anchors is given \
                        out, and a change that was underway in the backup goes on from its beginning.";
            if agreed(what, yes)? {
                let word = Word::Restored(RestoredTrust {});
                admin.change_trust(word).await?;
            }
        }
        TrustAction::Left { workload, yes } => {
            let what = format!(
                "No gate waits for {workload} any more. If it is still there, it may come to trust nobody."
            );
            if agreed(&what, yes)? {
                let word = Word::DeclareLeft(DeclareLeft { workload });
                admin.change_trust(word).await?;
            }
        }
        TrustAction::Audit { verify, from } => {
            let trust = admin.trust().await?;
            return audit::run(&mut output, &folder, &trust, from, verify, json);
        }
        TrustAction::Lint { anchor, issuer } => {
            let anchor = anchor.map_or(Ok(String::new()), |path| read(&path))?;
            let findings = admin.lint_trust(anchor, read(&issuer)?).await?;
            if json {
                output.line(&serde_json::json!(findings).to_string());
            }
            for finding in findings.iter().filter(|_| !json) {
                output.line(finding);
            }
            if !findings.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
            if !json {
                output.line("nothing is wrong with them");
            }
        }
        TrustAction::ExportRoot { folder } => root::export(&admin, &folder).await?,
        TrustAction::RemoveRoot { folder, yes } => {
            return root::remove(&admin, &mut output, &folder, yes).await;
        }
        TrustAction::IssuerRequest { file, anew } => {
            let csr = admin.request_issuer(anew).await?;
            data::write_private(&file, &csr)?;
            eprintln!(
                "wrote {}: have it signed where the anchor's key is, then `mesh trust import --issuer CERTIFICATE`",
                file.display()
            );
        }
        // It was done before.
        TrustAction::SignIssuer { .. } => {}
        TrustAction::Import {
            anchor,
            anchor_key,
            issuer,
            issuer_key,
            no_wait,
            yes,
        } => {
            let brought = root::Brought {
                anchor,
                anchor_key,
                issuer,
                issuer_key,
            };
            if !root::import(&admin, &brought, yes).await? {
                return Ok(ExitCode::FAILURE);
            }
            let begun = admin.trust().await?.change.is_some();
            if begun && !no_wait {
                return follow(&admin, &mut output, json).await;
            }
        }
        TrustAction::Carry { workloads, yes } => {
            let what = format!(
                "The change goes on to sign with the new anchor although these do not trust it yet. Each new certificate comes \
                 with a cross-certificate by the old anchor, and the change waits for them before that goes: {}",
                workloads.join(", ")
            );
            if agreed(&what, yes)? {
                let word = Word::Carry(CarryTrust { workloads });
                admin.change_trust(word).await?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn rotate(
    admin: &Admin,
    output: &mut Output,
    issuer_only: bool,
    no_wait: bool,
    yes: bool,
    json: bool,
) -> Result<ExitCode, Error> {
    let plan = admin.plan_trust(issuer_only).await?;
    if !json {
        show::plan(output, &plan, SystemTime::now());
    }
    let what = if issuer_only {
        "The issuer is replaced, below the same anchor."
    } else {
        "The trust anchor and the issuer are replaced."
    };
    if !agreed(what, yes)? {
        return Ok(ExitCode::FAILURE);
    }
    let word = Word::Rotate(RotateTrust { issuer_only });
    admin.change_trust(word).await?;
    if no_wait {
        return Ok(ExitCode::SUCCESS);
    }
    follow(admin, output, json).await
}

/// Shows a change until it has ended.
async fn follow(admin: &Admin, output: &mut Output, json: bool) -> Result<ExitCode, Error> {
    let mut last = None;
    let mut shown = String::new();
    let each = |trust: &Trust| {
        if json {
            output.line(&show::json(trust).to_string());
        } else {
            let line = show::progress(trust);
            if output.is_terminal() {
                output.live(&line);
            } else if line != shown {
                output.line(&line);
                shown = line;
            }
        }
        last = Some(trust.clone());
        let retires = |anchor: &TrustAnchor| anchor.state == "retiring";
        trust.change.is_some() || trust.anchors.iter().any(retires)
    };
    admin.follow_trust(each).await?;
    let completed = last.is_some_and(|trust| trust.last_outcome == "completed");
    if !json {
        output.line(if completed {
            "done: everybody uses the new one only, and the old key is destroyed"
        } else {
            "the change was undone; `mesh trust audit` says by whom and why"
        });
    }
    Ok(if completed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(output: &mut Output, trust: &Trust, json: bool) {
    if json {
        output.line(&show::json(trust).to_string());
    } else {
        show::status(output, trust, SystemTime::now());
    }
}

/// Asks, unless it was said beforehand.
fn agreed(what: &str, yes: bool) -> Result<bool, Error> {
    eprintln!("{what}");
    if yes {
        return Ok(true);
    }
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(Error::Refused(
            "nobody is there to be asked; say --yes".to_owned(),
        ));
    }
    eprint!("Go on? [y/N] ");
    // Nothing can be done about a closed terminal.
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = input.lock().read_line(&mut answer);
    read.map_err(Error::Runtime)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::File {
        path: PathBuf::from(path),
        source,
    })
}
