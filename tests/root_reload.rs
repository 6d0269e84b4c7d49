//! SIGHUP under live traffic: ports, budget and filters are other ones, and no packet was lost on the way.

mod common;
mod net;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use common::watched::{Running, get, sample, until};
use common::{json_lines, of_kind, run, syntap};
use net::{NEAR_IP, Wire, skip};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};

/// A tap with a file of settings.
struct Tapped {
    wire: Wire,
    dir: tempfile::TempDir,
    config: PathBuf,
    run: Running,
    at: SocketAddr,
}

impl Tapped {
    fn new(settings: &str) -> Tapped {
        let (wire, dir) = (Wire::new(), tempfile::tempdir().unwrap());
        let config = dir.path().join("syntap.toml");
        let records = dir.path().join("records");
        fs::create_dir(&records).unwrap();
        let fixed = format!(
            "interface = \"near=inside\"\nnetns = \"{}\"\nwrite = \"{}\"\nmetrics = \"127.0.0.1:0\"\nstatus = 0\n",
            wire.near.name,
            records.display()
        );
        fs::write(&config, format!("{fixed}max-flows = 4096\n{settings}")).unwrap();
        let mut command: Command = syntap();
        let mut run = Running::start(command.args(["run", "--user", "root"]).arg("--config").arg(&config));
        let at = run.address();
        run.says("records go to");
        let mut tapped = Tapped { wire, dir, config, run, at };
        // The signal is no end from here on.
        until("it is up", || {
            if tapped.of("syntap_start_time_seconds", &[]) > 0.0 { Ok(()) } else { Err("no".into()) }
        });
        tapped.run.said.clear();
        tapped
    }

    fn of(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        sample(&get(self.at, "/metrics", "*/*"), name, labels)
    }

    /// Other settings, and the line that is said of them.
    fn reload(&mut self, from: &str, to: &str, said: &str) -> String {
        let text = fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&self.config, text.replace(from, to)).unwrap();
        kill(self.run.pid(), Signal::SIGHUP).unwrap();
        self.run.says(said)
    }

    fn listen(&self, port: u16) -> TcpListener {
        self.wire.near.run(|| TcpListener::bind((NEAR_IP, port))).expect("a free port")
    }
}

/// A connection from `far`: opened, used, and open.
fn open(wire: &Wire, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let to = listener.local_addr().unwrap();
    let mut client = wire.far.run(|| TcpStream::connect(to)).expect("it listens");
    let (mut server, _) = listener.accept().expect("a connection");
    let mut byte = [0];
    client.write_all(b"x").unwrap();
    server.read_exact(&mut byte).unwrap();
    (client, server)
}

fn close((client, server): (TcpStream, TcpStream)) {
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let (mut client, mut server) = (client, server);
    assert_eq!(server.read(&mut [0]).unwrap(), 0, "the client's FIN");
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "the server's FIN");
}

/// Ends the talk also where the test fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn ports_change_under_traffic_and_every_connection_stays_whole() {
    if skip("reload") {
        return;
    }
    // Where the machine gives the test its time in pieces its connections come in bursts, which the usual budget would shed.
    let mut tapped = Tapped::new("ports = \"8080\"\nbudget = [\"100000000\"]\n");
    let (old, new) = (tapped.listen(8080), tapped.listen(9090));
    let held: Vec<_> = (0..8).map(|_| open(&tapped.wire, &old)).collect();
    close(open(&tapped.wire, &new));
    until("the held ones are followed", || match tapped.of("syntap_handshakes_total", &[]) {
        8.0 => Ok(()),
        n => Err(format!("{n} handshakes")),
    });

    // Connections come and go while the ports change again and again.
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let wire = Wire {
        near: net::Namespace { name: tapped.wire.near.name.clone() },
        far: net::Namespace { name: tapped.wire.far.name.clone() },
    };
    thread::scope(|scope| {
        let talk = || {
            while !stop.load(Ordering::Relaxed) {
                close(open(&wire, &old));
                count.fetch_add(1, Ordering::Relaxed);
            }
        };
        let talker = scope.spawn(talk);
        let _stop = StopOnDrop(&stop);
        for round in 0..6 {
            let before = count.load(Ordering::Relaxed);
            while count.load(Ordering::Relaxed) < before + 50 && !talker.is_finished() {
                thread::sleep(Duration::from_millis(5));
            }
            match round % 2 {
                0 => tapped.reload("\"8080\"", "\"8080,9090\"", "following ports 8080,9090"),
                _ => tapped.reload("\"8080,9090\"", "\"8080\"", "following ports 8080"),
            };
        }
    });
    std::mem::forget(wire); // The names are the other one's.
    tapped.reload("\"8080\"", "\"9090,8080\"", "following ports 8080,9090");
    close(open(&tapped.wire, &new));

    // One of those that were open before all this is reset now, the others end well.
    let mut held = held.into_iter();
    let (client, server) = held.next().unwrap();
    let port = client.local_addr().unwrap().port();
    setsockopt(&server, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    drop(server);
    held.for_each(close);
    let all = 8 + count.load(Ordering::Relaxed) + 1;
    until("all are counted", || {
        let page = get(tapped.at, "/metrics", "*/*");
        let of = |name: &str| sample(&page, name, &[]);
        let seen =
            [of("syntap_handshakes_total"), of("syntap_attempts_total"), of("syntap_failed_attempts_total")];
        let lost = of("syntap_dropped_packets_total") + of("syntap_missed_packets_total");
        let resets = sample(&page, "syntap_anomalies_total", &[("kind", "reset_mid_flow")]);
        let wanted = [all as f64, all as f64, 0.0];
        if (seen, lost, resets) == (wanted, 0.0, 1.0) {
            Ok(())
        } else {
            Err(format!("{seen:?} of {all}, {lost} lost, {resets} resets"))
        }
    });
    // What every mirrored packet is counted as: nothing was passed over.
    let page = get(tapped.at, "/metrics", "*/*");
    assert_eq!(sample(&page, "syntap_worked_packets_total", &[("class", "other")]), 0.0, "{page}");
    assert_eq!(sample(&page, "syntap_resets_total", &[]), 1.0);

    let Tapped { run: running, dir, .. } = tapped;
    running.end();
    let records = json_lines(&run(syntap().args(["show", "--json"]).arg(dir.path().join("records"))));
    let above: Vec<_> = records.iter().filter(|r| r["severity"] != "info").collect();
    let reset = of_kind(&records, "reset_mid_flow");
    assert_eq!((above.len(), reset.len()), (1, 1), "{above:?}");
    assert_eq!(reset[0]["src_port"], port);
    let history = reset[0]["history"].as_str().unwrap();
    assert!(history.starts_with("ShA"), "it is known from its first packet on: {history}");
}

#[test]
fn budget_and_filters_change_and_a_bad_file_changes_nothing() {
    if skip("reload") {
        return;
    }
    let mut tapped = Tapped::new("ports = 8080\nbudget = \"200000\"\nseverity = \"info\"\n");
    let listener = tapped.listen(8080);
    let talk = |tapped: &Tapped, n: usize| (0..n).for_each(|_| close(open(&tapped.wire, &listener)));
    let shed = |tapped: &Tapped| tapped.of("syntap_shed_packets_total", &[("class", "syn")]);
    talk(&tapped, 20);
    assert_eq!(shed(&tapped), 0.0);

    for (bad, said) in [
        ("ports = 0", "port 0 is not a port"),
        ("ports = 8080 9", "line"),
        ("prots = 8080", "there is no option 'prots'"),
    ] {
        let line = tapped.reload("ports = 8080", bad, "the settings stay as they were");
        assert!(line.contains(said), "{line}");
        tapped.run.says("hint: ");
        fs::write(&tapped.config, fs::read_to_string(&tapped.config).unwrap().replace(bad, "ports = 8080"))
            .unwrap();
    }
    let aside = tapped.config.with_extension("aside");
    fs::rename(&tapped.config, &aside).unwrap();
    kill(tapped.run.pid(), Signal::SIGHUP).unwrap();
    let line = tapped.run.says("the settings stay as they were");
    assert!(line.contains("cannot read"), "{line}");
    tapped.run.says("hint: put the file back");
    fs::rename(&aside, &tapped.config).unwrap();
    assert_eq!(tapped.of("syntap_ports", &[]), 1.0);

    // Least of all budgets: a packet a window.
    tapped.reload("budget = \"200000\"", "budget = \"100,5%\"", "the budget is another one");
    until("it is shown", || {
        let now =
            (tapped.of("syntap_budget_packets_per_second", &[]), tapped.of("syntap_budget_cpu_ratio", &[]));
        if now == (100.0, 0.05) { Ok(()) } else { Err(format!("{now:?}")) }
    });
    until("the kernel side keeps to it", || {
        talk(&tapped, 50);
        if shed(&tapped) > 0.0 { Ok(()) } else { Err("nothing is shed".into()) }
    });
    tapped.reload("budget = \"100,5%\"", "budget = \"100000\"", "the budget is another one");
    until("it is shown", || match tapped.of("syntap_budget_packets_per_second", &[]) {
        100_000.0 => Ok(()),
        n => Err(n.to_string()),
    });
    // The kernel side loosens within windows of 10 ms.
    thread::sleep(Duration::from_millis(300));
    let before = tapped.of("syntap_selected_packets_total", &[("class", "syn"), ("direction", "ingress")]);
    talk(&tapped, 50);
    until("nothing is shed any more", || {
        let after = tapped.of("syntap_selected_packets_total", &[("class", "syn"), ("direction", "ingress")]);
        if after == before + 50.0 { Ok(()) } else { Err(format!("{before} {after}")) }
    });

    // What is no `black_hole` is counted, and not written.
    drop(listener);
    let refused = |tapped: &Tapped, times: f64| {
        assert!(tapped.wire.far.run(|| TcpStream::connect((NEAR_IP, 8080))).is_err());
        until("it is told", || match tapped.of("syntap_anomalies_total", &[("kind", "syn_refused")]) {
            n if n == times => Ok(()),
            n => Err(n.to_string()),
        });
    };
    tapped.reload("severity = \"info\"", "kind = \"black_hole\"", "records that pass --kind black_hole");
    refused(&tapped, 1.0);
    tapped.reload("kind = \"black_hole\"", "severity = \"info\"", "records that pass --severity info");
    refused(&tapped, 2.0);
    tapped.reload("max-flows = 4096", "max-flows = 8192", "max-flows has changed");

    let Tapped { run: running, dir, .. } = tapped;
    running.end();
    let records = json_lines(&run(syntap().args(["show", "--json"]).arg(dir.path().join("records"))));
    assert_eq!(of_kind(&records, "syn_refused").len(), 1, "the second one alone");
    assert!(!of_kind(&records, "budget_shed").is_empty());
}
