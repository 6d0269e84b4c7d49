//! The layers point one way.

use std::path::Path;

/// What each layer may import from the crate.
const MAY: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("flow", &["wire"]),
    ("track", &["wire", "flow"]),
    ("detect", &["wire", "flow", "track"]),
    ("record", &["wire", "flow", "track", "detect"]),
    ("report", &["wire", "flow", "track", "detect", "record"]),
    ("bpf", &["wire"]),
    ("capture", &["wire", "bpf"]),
    ("guard", &[]),
    ("telemetry", &["wire"]),
    ("pipeline", &["wire", "flow", "track", "detect", "record", "bpf", "capture", "telemetry"]),
];

fn files(dir: &Path, out: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

#[test]
fn no_layer_imports_one_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut looked_at = 0;
    for (layer, may) in MAY {
        let mut list = Vec::new();
        files(&src.join(layer), &mut list);
        for file in list {
            let text = std::fs::read_to_string(&file).expect("a source file is readable");
            for (n, line) in text.lines().enumerate() {
                let mut rest = line.split("//").next().unwrap_or("");
                while let Some(at) = rest.find("crate::") {
                    rest = &rest[at + "crate::".len()..];
                    let name: String =
                        rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    looked_at += 1;
                    if name != *layer && !may.contains(&name.as_str()) && MAY.iter().any(|(l, _)| *l == name)
                    {
                        wrong.push(format!("{}:{}: {layer} imports {name}", file.display(), n + 1));
                    }
                }
            }
        }
    }
    assert!(looked_at > 20, "the test reads the sources");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_command_line_prints_and_only_the_pipeline_makes_threads() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for layer in [
        "wire",
        "flow",
        "track",
        "detect",
        "record",
        "report",
        "bpf",
        "capture",
        "guard",
        "telemetry",
        "pipeline",
    ] {
        let mut list = Vec::new();
        files(&src.join(layer), &mut list);
        for file in list {
            let text = std::fs::read_to_string(&file).expect("a source file is readable");
            let code = text.split("#[cfg(test)]").next().unwrap_or("");
            // Beside the pipeline only a namespace needs a thread: one that enters it and ends. The command line reads shards by several.
            let threads = layer != "pipeline" && !file.ends_with("capture/netns.rs");
            for word in ["thread::scope", "thread::spawn", "thread::Builder"] {
                if threads && code.contains(word) {
                    wrong.push(format!("{}: {word}", file.display()));
                }
            }
            for word in ["println!", "eprintln!"] {
                if code.contains(word) {
                    wrong.push(format!("{}: {word}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
