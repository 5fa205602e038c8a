//! `mesh-bench soak`: mixed load through real proxies for a while, with endpoints that come and go and certificates that
//! are renewed. Nothing may fail, and memory must not grow.

mod churn;
mod report;
mod watch;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::args;
use crate::error::Error;
use crate::load::{Plan, Work};
use crate::peers::{Control, Found, programs};
use crate::report::About;
use crate::stage::{Cores, Ground, Load};

use churn::Churn;
use report::{Carried, Report};
use watch::Watch;

/// Runs it and prints what came of it.
///
/// # Errors
/// If it cannot be set up.
pub(crate) async fn soak(arguments: &args::Soak) -> Result<ExitCode, Error> {
    let programs = programs(&arguments.wanted)?;
    let time = arguments.time();
    // Nobody is timed here, so everybody runs wherever there is room.
    let ground = Ground::prepare(Cores::of(1)).await?;
    let folder = ground.folder("soak")?;
    let manifests = [churn::manifests()];
    let control = Control::start(&ground, &programs, &folder, PORT, &manifests).await?;
    let mut churn = Churn::new(&ground, &control)?;
    let mut servers = Vec::new();
    for number in 1..=churn::ENDPOINTS {
        let tables = churn.inbound(number);
        servers.push(control.proxy(&ground.network.server, &churn::name(number), &tables, None)?);
        churn.publish(number)?;
    }
    let tables = churn::outbound();
    let client = control.proxy(&ground.network.client, "client", &tables, None)?;
    ground.until_answered(Work::Http1, churn::http()).await?;
    ground.until_answered(Work::Connect, churn::tcp()).await?;

    let mut loads: Vec<(Plan, Load)> = Vec::new();
    for plan in plans(time) {
        let load = ground.load(&plan)?;
        loads.push((plan, load));
    }
    for (_, load) in &mut loads {
        load.counting().await?;
    }
    let mut watch = Watch::new(vec![
        (
            "the client's proxy",
            &client,
            &ground.network.client,
            churn::CLIENT_ADMIN,
        ),
        (
            "a server's proxy",
            &servers[0],
            &ground.network.server,
            churn::admin(1),
        ),
    ]);
    let start = Instant::now();
    let mut next_churn = start + CHURN_EVERY;
    while start.elapsed() < time {
        tokio::time::sleep(SAMPLE_EVERY.min(time.saturating_sub(start.elapsed()))).await;
        watch.sample()?;
        if Instant::now() >= next_churn {
            churn.step()?;
            next_churn += CHURN_EVERY;
        }
    }
    let mut carried = Vec::new();
    for (plan, mut load) in loads {
        let outcome = load.over(&plan).await?;
        let ended = load.release().await.err().map(|error| error.to_string());
        carried.push(Carried {
            plan,
            outcome,
            ended,
        });
    }
    let found = [Found::Mesh(programs)];
    let about = About::new(&ground.cores, &found, &[]);
    let report = Report::new(time, &about, &carried, &churn, &watch);
    let text = report.markdown();
    if let Some(out) = &arguments.out {
        std::fs::create_dir_all(out).map_err(Error::file(out))?;
        let memory = watch::memory_csv(&watch.proxies);
        for (name, text) in [("soak.md", &text), ("soak-memory.csv", &memory)] {
            let file = out.join(name);
            std::fs::write(&file, text).map_err(Error::file(file))?;
        }
    }
    crate::say(&text);
    Ok(if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Where the controller listens.
const PORT: u16 = 8088;
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
const CHURN_EVERY: Duration = Duration::from_secs(2);

/// Everything at once, at rates that leave the machine room: what is looked for is what goes wrong with time.
fn plans(time: Duration) -> Vec<Plan> {
    let plan = |work, size, connections, rate| Plan {
        target: match work {
            Work::TcpUp | Work::TcpDown | Work::Connect => churn::tcp(),
            _ => churn::http(),
        },
        work,
        size,
        connections,
        warm_up: Duration::ZERO,
        time,
        rate: Some(rate),
        idle: false,
    };
    vec![
        plan(Work::Http1, 128, 16, 200),
        plan(Work::Http1, 16 << 10, 4, 50),
        plan(Work::Http2, 128, 16, 200),
        plan(Work::Http2, 1 << 20, 2, 5),
        plan(Work::GrpcUnary, 128, 8, 100),
        plan(Work::GrpcStream, 128, 8, 100),
        plan(Work::Connect, 1, 4, 20),
        plan(Work::TcpUp, 0, 2, 20),
    ]
}
