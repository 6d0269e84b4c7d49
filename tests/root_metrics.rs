//! A run with `--metrics` on real traffic: what it shows is what happened, and is read by Prometheus' own programs.

mod common;
mod net;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use common::watched::{Running, ask, get, prometheus, promtool, sample, until};
use common::{root, syntap};
use net::tap::{ping, serve};
use nix::sys::socket::{setsockopt, sockopt};

use net::{NEAR_IP, Wire, skip};

const PORT: u16 = 8080;

fn tap(wire: &Wire, dir: &tempfile::TempDir, more: &[&str]) -> Command {
    let mut command = syntap();
    command.args([
        "run",
        "--user",
        "root",
        "--netns",
        &wire.near.name,
        "-i",
        "near=inside",
        "-p",
        "8080,8081",
        "-w",
    ]);
    command.arg(dir.path()).args(["--max-flows", "4096", "--status", "0"]).args(more);
    command
}

/// Connections that are answered, and some that are refused.
fn talk(wire: &Wire, answered: usize, refused: usize) {
    let at = format!("{NEAR_IP}:{PORT}");
    serve(&wire.near, &at, answered, || {
        wire.far.run(|| {
            (0..answered).for_each(|_| {
                ping(&at);
            })
        });
    });
    wire.far.run(|| {
        for _ in 0..refused {
            assert!(TcpStream::connect((NEAR_IP, PORT)).is_err(), "nobody listens there any more");
        }
    });
}

/// A connection that its server resets in the middle.
fn hurt(wire: &Wire) {
    let listener = wire.near.run(|| TcpListener::bind((NEAR_IP, PORT))).expect("a free port");
    let mut client = wire.far.run(|| TcpStream::connect((NEAR_IP, PORT))).expect("it listens");
    let (mut server, _) = listener.accept().expect("a connection");
    let mut byte = [0];
    client.write_all(b"x").unwrap();
    server.read_exact(&mut byte).unwrap();
    setsockopt(&server, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    drop(server);
    assert!(client.read(&mut byte).is_err(), "a reset");
}

#[test]
fn a_scrape_shows_what_happened_and_prometheus_reads_it() {
    if skip("metrics") {
        return;
    }
    let (wire, dir) = (Wire::new(), tempfile::tempdir().unwrap());
    let (socket, file) = (dir.path().join("metrics.sock"), dir.path().join("syntap.prom"));
    let endpoints = format!("127.0.0.1:0,{},{}", socket.display(), file.display());
    let responder = format!("{NEAR_IP}:{PORT}");
    let mut run =
        Running::start(&mut tap(&wire, &dir, &["--metrics", &endpoints, "--responder", &responder]));
    let at = run.address();
    run.says("records go to");
    talk(&wire, 5, 3);

    let older = |path: &str| get(at, path, "text/plain");
    until("the handshakes are shown", || {
        let page = older("/metrics");
        let shown = [
            sample(&page, "syntap_handshake_seconds_count", &[("interface", "near")]),
            sample(&page, "syntap_failed_attempts_total", &[("interface", "near")]),
            sample(&page, "syntap_responder_attempts_total", &[("responder", &responder)]),
            sample(&page, "syntap_anomalies_total", &[("kind", "syn_refused"), ("verdict", "responder")]),
        ];
        // A frame of a shard is written each second.
        let written = sample(&page, "syntap_records_written_total", &[]) >= 1.0;
        if written && shown == [5.0, 3.0, 8.0, 3.0] { Ok(()) } else { Err(format!("{shown:?}\n{page}")) }
    });
    let page = older("/metrics");
    let of = |name: &str, labels: &[(&str, &str)]| sample(&page, name, labels);
    let selected = of("syntap_selected_packets_total", &[("interface", "near")]);
    assert!(
        selected >= 8.0 * 3.0 && selected == of("syntap_mirrored_packets_total", &[("interface", "near")])
    );
    assert_eq!(of("syntap_selected_packets_total", &[("class", "syn"), ("direction", "ingress")]), 8.0);
    assert_eq!(of("syntap_dropped_packets_total", &[]) + of("syntap_missed_packets_total", &[]), 0.0);
    assert_eq!(of("syntap_flows_limit", &[]), 4096.0);
    assert_eq!(of("syntap_interface_up", &[("interface", "near")]), 1.0);
    assert!(of("syntap_shard_bytes_total", &[]) > 0.0, "{page}");
    assert!(
        of("syntap_clock_uncertainty_seconds", &[]) > 0.0
            && of("syntap_queue_limit", &[("queue", "packets")]) > 0.0
    );
    assert!(of("syntap_thread_idle_seconds", &[("thread", "worker 0")]) < 30.0, "{page}");

    let open = get(at, "/metrics", "application/openmetrics-text; version=1.0.0");
    assert!(open.ends_with("# EOF\n") && open.contains("# TYPE syntap_handshakes counter\n"));
    let names =
        |page: &str| page.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.rsplit_once(' ')).count();
    assert_eq!(names(&open), names(&older("/metrics")), "both forms have the same samples");
    hurt(&wire);
    until("the live view names the responder", || {
        let live: serde_json::Value = serde_json::from_str(&get(at, "/live", "*/*")).expect("JSON");
        let worst = &live["responders"][0];
        let shown = live["handshakes"] == 6
            && live["events"][0]["kind"] == "syn_refused"
            && (&worst["at"], &worst["kind"]) == (&responder.as_str().into(), &"reset_mid_flow".into());
        if shown { Ok(()) } else { Err(live.to_string()) }
    });

    let by_socket = ask(&mut UnixStream::connect(&socket).expect("it listens"), "/metrics", "*/*");
    assert!(by_socket.contains("\nsyntap_build_info{version="), "{by_socket}");
    until("the file is written", || {
        let text = fs::read_to_string(&file).map_err(|e| e.to_string())?;
        if sample(&text, "syntap_handshakes_total", &[]) >= 5.0 { Ok(()) } else { Err(text) }
    });
    if let Some(program) = prometheus("promtool") {
        let text = fs::read_to_string(&file).unwrap();
        for page in [page, text] {
            promtool(&program, &["check", "metrics"], &page).unwrap_or_else(|said| panic!("{said}"));
        }
    }
    let said = run.end();
    assert!(
        !socket.exists() && !file.exists(),
        "nothing is left that would be taken for the present: {said}"
    );
}

/// Names of this project's metrics in an expression, as samples have them.
fn names_in(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words.filter(|w| w.starts_with("syntap_")).map(str::to_owned).collect()
}

/// All expressions of a dashboard, wherever they stand.
fn expressions(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value.as_str()) {
                    ("expr" | "definition", Some(text)) => found.push(text.to_owned()),
                    _ => expressions(value, found),
                }
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|v| expressions(v, found)),
        _ => {}
    }
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port")
}

/// What Prometheus answers to a query of its own interface.
fn api(at: SocketAddr, path: &str) -> Result<serde_json::Value, String> {
    let mut stream = TcpStream::connect(at).map_err(|e| e.to_string())?;
    let said = ask(&mut stream, path, "*/*\r\nConnection: close");
    let body = said.split_once("\r\n\r\n").map_or("", |b| b.1);
    // A long body comes in chunks: what is between its first brace and its last one, without their lengths.
    let json: String =
        body.lines().filter(|l| l.starts_with('{') || l.starts_with('"') || l.len() > 8).collect();
    serde_json::from_str(&json).map_err(|e| format!("{e}: {body}"))
}

fn query(at: SocketAddr, expression: &str) -> Result<f64, String> {
    let encoded: String = expression.bytes().map(|b| format!("%{b:02x}")).collect();
    let said = api(at, &format!("/api/v1/query?query={encoded}"))?;
    let value = said["data"]["result"][0]["value"][1].as_str().and_then(|v| v.parse().ok());
    value.ok_or_else(|| said.to_string())
}

#[test]
fn a_real_prometheus_scrapes_it_and_takes_the_rules_and_every_query_of_the_dashboard_has_its_metrics() {
    if skip("prometheus") {
        return;
    }
    let (Some(program), Some(promtool_program)) = (prometheus("prometheus"), prometheus("promtool")) else {
        return;
    };
    let (wire, dir) = (Wire::new(), tempfile::tempdir().unwrap());
    let responder = format!("{NEAR_IP}:{PORT}");
    let mut run =
        Running::start(&mut tap(&wire, &dir, &["--metrics", "127.0.0.1:0", "--responder", &responder]));
    let at = run.address();
    run.says("records go to");
    let config = dir.path().join("prometheus.yml");
    let rules = root().join("packaging/prometheus/syntap.rules.yml");
    let text = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n- job_name: syntap\n  \
         static_configs: [{{targets: ['{at}']}}]\n",
        rules.display()
    );
    fs::write(&config, text).unwrap();
    let (web, log) = (free(), fs::File::create(dir.path().join("prometheus.log")).unwrap());
    let _daemon = Daemon(
        Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("tsdb").display()))
            .arg(format!("--web.listen-address={web}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus starts"),
    );
    until("it is scraped", || match query(web, "up{job=\"syntap\"}")? {
        1.0 => Ok(()),
        other => Err(format!("up is {other}")),
    });
    talk(&wire, 4, 2);
    until("what happened is there", || {
        let seen = [
            query(web, "syntap_handshakes_total")?,
            query(web, "syntap_handshake_seconds_count{interface=\"near\"}")?,
            query(web, "sum(syntap_anomalies_total{kind=\"syn_refused\"})")?,
        ];
        if seen == [4.0, 4.0, 2.0] { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    until("all rules are evaluated and none complains", || {
        let said = api(web, "/api/v1/rules")?;
        let groups = said["data"]["groups"].as_array().cloned().unwrap_or_default();
        let health: Vec<String> = groups
            .iter()
            .flat_map(|g| g["rules"].as_array().cloned().unwrap_or_default())
            .map(|r| r["health"].to_string())
            .collect();
        if health.len() > 15 && health.iter().all(|h| h == "\"ok\"") { Ok(()) } else { Err(said.to_string()) }
    });

    let page = get(at, "/metrics", "text/plain");
    let samples: BTreeSet<&str> = page.lines().filter_map(|l| l.split(['{', ' ']).next()).collect();
    let dashboard = fs::read_to_string(root().join("packaging/grafana/syntap.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).expect("JSON");
    let mut asked = Vec::new();
    expressions(&dashboard, &mut asked);
    assert!(asked.len() > 30, "{}", asked.len());
    for expression in &asked {
        for name in names_in(expression) {
            assert!(
                samples.contains(name.as_str()),
                "{name}, of the dashboard's '{expression}', is in no scrape"
            );
        }
        // As Grafana fills them in before it asks.
        let filled = expression
            .replace("$__rate_interval", "1m")
            .replace("$instance", ".*")
            .replace("$interface", ".*");
        if expression.starts_with("label_values") {
            continue;
        }
        promtool(&promtool_program, &["query", "instant", &format!("http://{web}"), &filled], "")
            .unwrap_or_else(|said| panic!("{expression}: {said}"));
    }
    let rules = fs::read_to_string(rules).unwrap();
    for name in names_in(&rules) {
        assert!(samples.contains(name.as_str()), "{name}, of the rules, is in no scrape");
    }
    run.end();
}

#[test]
fn each_alert_fires_when_it_should_and_not_otherwise() {
    let Some(program) = prometheus("promtool") else { return };
    for (what, file) in [("check", "syntap.rules.yml"), ("test", "syntap.rules.test.yml")] {
        let file = format!("packaging/prometheus/{file}");
        promtool(&program, &[what, "rules", &file], "").unwrap_or_else(|said| panic!("{said}"));
    }
    // Each alert is one that the tests make fire.
    let tests = fs::read_to_string(root().join("packaging/prometheus/syntap.rules.test.yml")).unwrap();
    let rules = fs::read_to_string(root().join("packaging/prometheus/syntap.rules.yml")).unwrap();
    for alert in rules.lines().filter_map(|l| l.trim().strip_prefix("- alert: ")) {
        let fires = tests.contains(&format!("alertname=\"{alert}\""))
            || alert == "SyntapGone" && tests.contains("alertname: SyntapGone");
        assert!(fires, "{alert} has no test");
    }
}
