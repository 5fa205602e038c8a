//! What really crossed a host's link, recorded by tcpdump and read back packet by packet.

use std::time::Duration;

use tempfile::TempDir;

use crate::network::Host;
use crate::process::Process;

const FILE_HEADER_BYTES: usize = 24;
const PACKET_HEADER_BYTES: usize = 16;
/// Little-endian pcap with microseconds, as tcpdump writes it on the machines we run on.
const MAGIC: [u8; 4] = [0xd4, 0xc3, 0xb2, 0xa1];

/// A capture that is running on a host's link.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    folder: TempDir,
}

/// The packets that were captured.
#[derive(Debug)]
pub struct Packets {
    packets: Vec<Vec<u8>>,
}

impl Capture {
    /// Records every TCP packet on the host's link from now on.
    ///
    /// # Panics
    /// If tcpdump does not start.
    #[must_use]
    pub fn start(host: &Host) -> Self {
        let folder =
            tempfile::tempdir().unwrap_or_else(|error| panic!("no folder for a capture: {error}"));
        let mut tcpdump = host
            .spawn("tcpdump")
            .args([
                "-i",
                "eth0",
                "-n",
                "-U",
                "--immediate-mode",
                "-s",
                "0",
                "-B",
                "65536",
                "-Z",
                "root",
                "-w",
            ])
            .arg(folder.path().join("link.pcap"))
            .arg("tcp")
            .user(0)
            .start();
        tcpdump.wait_line("listening on eth0");
        Self { tcpdump, folder }
    }

    /// Ends the capture and reads it.
    ///
    /// # Panics
    /// If tcpdump lost packets or its file cannot be read.
    #[must_use]
    pub fn stop(mut self) -> Packets {
        // The kernel hands packets over in blocks: let the last one out before the end.
        std::thread::sleep(Duration::from_millis(200));
        self.tcpdump.terminate();
        self.tcpdump.wait(Duration::from_secs(10));
        self.tcpdump.wait_line("0 packets dropped by kernel");
        let file = self.folder.path().join("link.pcap");
        let bytes =
            std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        Packets::parse(&bytes)
    }
}

impl Packets {
    /// How many packets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// How many packets have `marker` in them.
    #[must_use]
    pub fn with(&self, marker: &[u8]) -> usize {
        self.packets
            .iter()
            .filter(|packet| packet.windows(marker.len()).any(|part| part == marker))
            .count()
    }

    /// # Panics
    /// If there are fewer than `at_least` packets (a capture of nothing proves nothing) or one has a marker in it.
    pub fn assert_without(&self, markers: &[&str], at_least: usize) {
        assert!(
            self.len() >= at_least,
            "only {} packets captured, expected {at_least} or more",
            self.len()
        );
        for marker in markers {
            let found = self.with(marker.as_bytes());
            assert!(
                found == 0,
                "{found} of {} packets carry {marker:?} in the clear",
                self.len()
            );
        }
    }

    fn parse(file: &[u8]) -> Self {
        assert!(
            file.starts_with(&MAGIC),
            "not a little-endian pcap file with microseconds"
        );
        let mut rest = &file[FILE_HEADER_BYTES..];
        let mut packets = Vec::new();
        while let Some((header, body)) = rest.split_at_checked(PACKET_HEADER_BYTES) {
            let length =
                u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
            let Some((packet, next)) = body.split_at_checked(length) else {
                break;
            };
            packets.push(packet.to_vec());
            rest = next;
        }
        Self { packets }
    }
}
