//! What a mesh's trust is asked and told, and who tries to misuse it.

use std::path::PathBuf;
use std::time::Duration;

use mesh_control_api::admin::Trust;
use mesh_control_api::admin::change_trust_request::Word;

use super::{CONTROLLER_PORT, Mesh, Workload, replace};
use crate::network::Host;
use crate::process::{Process, Spawn};
use crate::programs;

impl Mesh<'_> {
    /// How trust stands, by the controller.
    ///
    /// # Panics
    /// If it does not answer.
    #[must_use]
    pub fn trust(&self) -> Trust {
        self.admin.trust()
    }

    /// The names of the phases that a rotation would go through.
    ///
    /// # Panics
    /// If the controller does not answer.
    #[must_use]
    pub fn trust_plan(&self) -> Vec<String> {
        self.admin.plan_trust()
    }

    /// Says an operator's word about trust; the error is why it was refused.
    ///
    /// # Errors
    /// What the controller has against it.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn change_trust(&self, word: Word) -> Result<(), String> {
        self.admin.change_trust(word)
    }

    /// Waits until trust stands so that `done` is content; `what` names it in the message.
    ///
    /// # Panics
    /// If it does not within `patience`.
    pub fn wait_trust(
        &self,
        what: &str,
        patience: Duration,
        done: impl FnMut(&Trust) -> bool,
    ) -> Trust {
        self.admin.wait_trust(what, patience, done)
    }

    /// Starts a program that has itself certified for `identity` and then shows that certificate, again and again, to the
    /// controller and to what is behind the proxies of these workloads at that port. See `e2e-member`.
    ///
    /// # Panics
    /// If it is not certified.
    #[must_use]
    pub fn member(&self, host: &Host, identity: &str, to: &[(&Workload, u16)]) -> Process {
        let mut member = self.member_spawn(host, identity);
        for (workload, port) in to {
            let (server, address) = (workload.identity(), workload.host.address());
            member = member.arg("--to").arg(format!("{server}={address}:{port}"));
        }
        let mut member = member.start();
        member.wait_line("certified");
        member
    }

    /// Starts a program that follows bundles as the first proxies did, with the words of their time. See `e2e-member`.
    ///
    /// # Panics
    /// If it does not get as far as to report.
    #[must_use]
    pub fn elder(&self, host: &Host, identity: &str) -> Process {
        let elder = self.member_spawn(host, identity);
        let key = self.folder.path().join("data/bundle-key.pub");
        let mut elder = elder.arg("--follow").arg(key).start();
        elder.wait_line("reports generation 1");
        elder
    }

    /// Has somebody certified for `identity` write down the bundle documents of the day, for [`Mesh::impostor`].
    ///
    /// # Panics
    /// If it is not certified, or not given any.
    pub fn take_documents(&self, host: &Host, identity: &str) {
        let documents = self.documents();
        let member = self.member_spawn(host, identity);
        let mut member = member.arg("--documents").arg(documents).start();
        member.wait_line("certified");
    }

    /// Starts a program in the place of the controller, which has ended: it has the anchor in use and its key, and gives out
    /// bundles of its own, and what [`Mesh::take_documents`] took. See `e2e-impostor`.
    ///
    /// # Panics
    /// If the anchor's key is not had, or the program is not ready.
    #[must_use]
    pub fn impostor(&mut self) -> Process {
        let root = self.admin.export_root();
        let name = self.admin.controller();
        let generation = self.trust().generation;
        self.controller.kill();
        let (anchor, key) = (
            self.folder.path().join("anchor.pem"),
            self.folder.path().join("anchor.key"),
        );
        replace(&anchor, &root.certificate_pem);
        replace(&key, &root.key_pem);
        let listen = format!("{}:{CONTROLLER_PORT}", self.host.address());
        let mut impostor = self
            .host
            .spawn(programs::built("e2e-impostor"))
            .args(["--listen", &listen, "--name", &name])
            .args(["--trust-domain", "cluster.local"])
            .args(["--generation", &(generation + 1).to_string()])
            .arg("--anchor")
            .arg(anchor)
            .arg("--key")
            .arg(key)
            .arg("--documents")
            .arg(self.documents())
            .start();
        impostor.wait_line("ready");
        impostor
    }

    fn documents(&self) -> PathBuf {
        self.folder.path().join("documents")
    }

    fn member_spawn(&self, host: &Host, identity: &str) -> Spawn {
        let token = self.folder.path().join(format!("{identity}.token"));
        replace(&token, &self.token(identity));
        host.spawn(programs::built("e2e-member"))
            .args(["--identity", identity, "--token"])
            .arg(token)
            .arg("--anchors")
            .arg(self.folder.path().join("data/anchors.pem"))
            .args(["--controller-name", &self.admin.controller()])
            .arg("--controller")
            .arg(format!("{}:{CONTROLLER_PORT}", self.host.address()))
    }
}
