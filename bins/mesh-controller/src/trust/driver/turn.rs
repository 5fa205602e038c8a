//! One turn: what was said and asked for goes into the record, the record is written, and then what is due is done.

use super::*;

/// An operator's word on its way through a turn.
struct Told {
    command: Command,
    event: Event,
    answer: Answer<(), CommandError>,
    verdict: Option<Result<(), NotRecorded>>,
}

impl Driver {
    /// Takes one turn.
    ///
    /// # Errors
    /// Any [`TrustError`]. Whoever asked for something in it is told that it cannot be had now.
    pub(in crate::trust) async fn turn(
        &mut self,
        now: SystemTime,
        batch: Vec<Request>,
    ) -> Result<(), TrustError> {
        let taken = self.try_turn(now, batch).await;
        let failure = taken
            .as_ref()
            .err()
            .map(|error| Arc::new(error.to_string()));
        self.shared.failure.store(failure);
        taken
    }

    async fn try_turn(&mut self, now: SystemTime, batch: Vec<Request>) -> Result<(), TrustError> {
        let at = unix(now);
        self.stand(now).await?;
        let reports = self.shared.take_reports();
        self.note_sampled(&reports);
        let mut probed = std::mem::take(&mut self.probed_before);
        probed.extend(self.probed());
        let (mut asks, mut told) = (Vec::new(), Vec::new());
        for request in std::mem::take(&mut self.waiting).into_iter().chain(batch) {
            match request {
                Request::Plan(issuer_only, answer) => {
                    // An issuer is made with the anchor's key, which only who leads holds.
                    let planned = match self.follows().await.filter(|_| issuer_only) {
                        Some(error) => Err(error.into()),
                        None => self.planned(issuer_only, now),
                    };
                    drop(answer.send(planned));
                }
                Request::ExportRoot(answer) => {
                    let exported = self.exported(now).await;
                    drop(answer.send(exported.map_err(CommandError::from)));
                }
                Request::RemoveRoot(anchor, answer) => {
                    let removed = self.remove_root(anchor, now).await;
                    drop(answer.send(removed.map_err(CommandError::from)));
                }
                Request::Issuer(anew, answer) => {
                    let made = self.issuer_request(anew).await;
                    drop(answer.send(made.map_err(CommandError::from)));
                }
                Request::BringBack(key, answer) => {
                    let taken = self.bring_back(key, now).await;
                    drop(answer.send(taken.map_err(CommandError::from)));
                }
                Request::Certify(ask, answer) => asks.push(self.asked(ask, answer)),
                Request::Command(command, answer) => {
                    match self.prepared(command.clone(), now).await {
                        Ok(event) => told.push(Told {
                            command,
                            event,
                            answer,
                            verdict: None,
                        }),
                        Err(error) => drop(answer.send(Err(error.into()))),
                    }
                }
            }
        }
        let due = match self.leads {
            true => match self.due(now).await {
                Ok(due) => due,
                Err(error @ TrustError::Store(_)) => return Err(error),
                Err(error) => {
                    warn!(%error, "a change of the schedule cannot be prepared");
                    self.hold(at);
                    None
                }
            },
            false => None,
        };
        let (mut refused, under_way) = (false, self.rotation().change().is_some());
        let own_ask = self.own_request(now);
        let site = self.site(at);
        let entered = self.stored.record.audit().length();
        let (own_leaf, left, seen) = loop {
            let mut record = Record::clone(&self.stored.record);
            let epoch = record.rotation().epoch();
            if !self.leads {
                self.epoch = epoch;
            } else if epoch != self.epoch {
                return Err(TrustError::Deposed { epoch });
            }
            let mut names = Names::default();
            let has = |record: &Record, entries| record.audit().length() >= entered + entries;
            let full = |record: &Record| has(record, MOST_ENTRIES);
            let left = self.gather(&mut record, at, &reports, &mut names, full);
            let mut seen = 0;
            while seen < probed.len() && !has(&record, MOST_WITH_PROBES) {
                self.take(&mut record, at, probed[seen].clone());
                seen += 1;
            }
            if self.leads {
                for event in &site {
                    self.take(&mut record, at, event.clone());
                }
            }
            for told in &mut told {
                told.verdict = None;
                if has(&record, MOST_WITH_WORDS) {
                    continue;
                }
                let taken = self.apply(&mut record, at, OPERATOR, told.event.clone());
                told.verdict = Some(taken.map(|_| ()));
            }
            if let Some(event) = &due {
                let taken = self.apply(&mut record, at, SCHEDULE, event.clone());
                let taken = taken.inspect_err(
                    |error| warn!(%error, "a change of the schedule cannot begin now"),
                );
                refused = taken.is_err();
            }
            let own_leaf = own_ask.clone().and_then(|ask| {
                let signed = self.apply(&mut record, at, ACTOR, Event::Certify(ask));
                let signed = signed.inspect_err(
                    |error| warn!(%error, "the controller's own certificate is not renewed now"),
                );
                signed.ok()?.into_iter().next()
            });
            for asked in &mut asks {
                asked.verdict = None;
                let incarnation = asked.incarnation();
                if !full(&record) || is_known(record.rotation(), &asked.id, incarnation) {
                    asked.verdict = Some(self.certified(&mut record, at, asked, &mut names));
                }
            }
            if self.leads {
                self.take(&mut record, at, Event::Tick);
            }
            if record == *self.stored.record || self.stored.write(record, self.leads).await? {
                break (own_leaf, left, seen);
            }
        };
        let undone = self.rotation().last_outcome() == Some(Outcome::SafelyAborted);
        if refused || (under_way && undone && self.rotation().change().is_none()) {
            self.hold(at);
        }
        if let Some(sign) = own_leaf {
            self.certify_itself(&sign, now).await?;
        }
        let (taken, later): (Vec<_>, Vec<_>) =
            asks.into_iter().partition(|asked| asked.verdict.is_some());
        for asked in taken {
            self.release(asked, now);
        }
        if let Err(error) = self.shared.issued.write(now).await {
            warn!(%error, "which keys leaves were issued for is not kept yet");
        }
        let (told, unsaid): (Vec<_>, Vec<_>) =
            told.into_iter().partition(|told| told.verdict.is_some());
        self.probed_before = probed.split_off(seen);
        let probes_left = !self.probed_before.is_empty();
        if !left.is_empty() || !later.is_empty() || !unsaid.is_empty() || probes_left {
            let words = unsaid.into_iter();
            let words = words.map(|it| Request::Command(it.command, it.answer));
            let again = later.into_iter();
            let again = again.map(|it| Request::Certify(it.ask, it.answer));
            self.waiting = words.chain(again).collect();
            let left = reports.into_iter().filter(|(id, _)| left.contains(id));
            self.shared.report_again(left);
        }
        // Who is told that its word is on record sees it in what is shown.
        self.show(now)?;
        // The request for an issuer that was out is answered.
        let requested = |told: &Told| match &told.command {
            Command::Import(import) => {
                import.is_requested() && matches!(told.verdict, Some(Ok(())))
            }
            _ => false,
        };
        if told.iter().any(requested) {
            self.keys.forget_request().await?;
        }
        for told in told {
            let verdict = told.verdict.unwrap_or(Ok(()));
            drop(told.answer.send(verdict.map_err(CommandError::from)));
        }
        self.act(now).await?;
        if let Err(error) = self.probe(now) {
            warn!(%error, "nobody can be probed");
        }
        if let Err(error) = self.ask_sample(now) {
            warn!(%error, "nobody can be asked what it accepts");
        }
        self.show(now)
    }

    /// Has the machine take an event on behalf of the epoch that this controller leads under.
    pub(super) fn apply(
        &self,
        record: &mut Record,
        at: UnixTime,
        actor: &str,
        event: Event,
    ) -> Result<Vec<Action>, NotRecorded> {
        record.apply(self.epoch, at, actor, event, &Sha256)
    }

    /// The same for what is only told: if it is refused there is nothing to be done about it but to say so.
    pub(super) fn take(&self, record: &mut Record, at: UnixTime, event: Event) {
        if let Err(error) = self.apply(record, at, ACTOR, event) {
            info!(%error, "not taken into the record of trust");
        }
    }
}

/// Whether the record knows this process already, so that what it says or asks for adds nothing to the audit chain.
pub(super) fn is_known(
    rotation: &Rotation,
    id: &WorkloadId,
    incarnation: Option<Incarnation>,
) -> bool {
    let known = rotation.consumers().get(id);
    known.is_some_and(|known| {
        incarnation.is_none_or(|it| it == known.incarnation)
            && !matches!(known.standing, Standing::Quarantined { .. })
    })
}

pub(super) const OPERATOR: &str = "operator";
const SCHEDULE: &str = "schedule";
/// After so many entries of the audit chain a turn takes no more reports and requests that may add to it, and leaves them to the
/// next: what it adds has to be in the record still when it is written to the archive, or when the next process opens that.
const MOST_ENTRIES: u64 = Chain::RECENT as u64 / 2;
/// After so many no more of what was probed, so that a crowd of the others does not hold it back.
const MOST_WITH_PROBES: u64 = MOST_ENTRIES + Chain::RECENT as u64 / 8;
/// After so many no more of operators' words. The rest of a turn adds less than what is left.
const MOST_WITH_WORDS: u64 = MOST_WITH_PROBES + Chain::RECENT as u64 / 8;
