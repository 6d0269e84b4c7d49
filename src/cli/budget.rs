//! `--budget`: what mirroring may cost, for all interfaces and for some.

use super::Fail;
use crate::bpf::Budget;
use crate::capture::TapConfig;

/// What one `--budget` says.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetArg(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
struct Part {
    /// The interface; all that have no budget of their own if `None`.
    of: Option<String>,
    limit: Limit,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    /// Mirrored packets a second and CPU.
    Packets(u64),
    /// Millionths of each CPU.
    Share(u32),
}

fn limit(text: &str) -> Result<Limit, Fail> {
    let refused = |what: &str| {
        Fail::new(format!("the budget '{text}' is no {what}"))
            .hint("write 50000 for packets a second and CPU, 25% for a share of each CPU, or both: 50000,25%")
    };
    if let Some(share) = text.strip_suffix('%') {
        let share = share.parse::<f64>().ok().filter(|s| (0.1..=100.0).contains(s));
        let share = share.ok_or_else(|| refused("share from 0.1% to 100%"))?;
        return Ok(Limit::Share((share * 10_000.0).round() as u32));
    }
    let packets = text.parse::<u64>().ok().filter(|n| (100..=100_000_000).contains(n));
    packets.map(Limit::Packets).ok_or_else(|| refused("number from 100 to 100000000"))
}

/// Reads `[IF=]LIMIT[,LIMIT]`, any number of times: an interface is meant until the next one is named.
pub fn budget(text: &str) -> Result<BudgetArg, Fail> {
    let mut of = None;
    let mut parts = Vec::new();
    for item in text.split(',') {
        let item = match item.split_once('=') {
            Some((name, rest)) => {
                of = Some(name.to_owned());
                rest
            }
            None => item,
        };
        parts.push(Part { of: of.clone(), limit: limit(item)? });
    }
    Ok(BudgetArg(parts))
}

fn apply(to: &mut Budget, limit: Limit) {
    match limit {
        Limit::Packets(pps) => to.pps = pps,
        Limit::Share(share) => to.share = share,
    }
}

/// Puts what was asked for into the configuration. An interface's own budget begins with that of all.
pub fn set(args: &[BudgetArg], config: &mut TapConfig) -> Result<(), Fail> {
    let parts = || args.iter().flat_map(|a| &a.0);
    for part in parts().filter(|p| p.of.is_none()) {
        apply(&mut config.budget, part.limit);
    }
    for part in parts() {
        let Some(name) = &part.of else { continue };
        if !config.interfaces.iter().any(|i| i.name == *name) {
            return Err(Fail::new(format!("--budget names interface {name}, which is not tapped"))
                .hint(format!("add -i {name}, or leave its budget out")));
        }
        if !config.budgets.iter().any(|(of, _)| of == name) {
            config.budgets.push((name.clone(), config.budget));
        }
        let own = config.budgets.iter_mut().find(|(of, _)| of == name);
        own.into_iter().for_each(|(_, budget)| apply(budget, part.limit));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::TapInterface;

    fn config(args: &[&str]) -> Result<TapConfig, Fail> {
        let interface = |name: &str| TapInterface { name: name.into(), mode: None };
        let mut config =
            TapConfig { interfaces: ["eth0", "eth1"].map(interface).into(), ..TapConfig::default() };
        let args = args.iter().map(|a| budget(a)).collect::<Result<Vec<_>, _>>()?;
        set(&args, &mut config).map(|()| config)
    }

    #[test]
    fn a_budget_is_packets_or_a_share_or_both_for_all_or_for_one() {
        let of = |args: &[&str], name: &str| config(args).unwrap().budget_of(name);
        assert_eq!(of(&[], "eth0"), Budget { pps: 200_000, share: 0 });
        assert_eq!(of(&["100"], "eth0"), Budget { pps: 100, share: 0 });
        assert_eq!(of(&["12.5%"], "eth0"), Budget { pps: 200_000, share: 125_000 });
        let both = ["50000,25%,eth1=1000,eth1=5%"];
        assert_eq!(of(&both, "eth0"), Budget { pps: 50_000, share: 250_000 });
        assert_eq!(of(&both, "eth1"), Budget { pps: 1_000, share: 50_000 });
        // What is meant for all counts for an interface that says nothing of it, whatever the order.
        let order = ["eth1=1000,5%", "25%", "eth1=2000"];
        assert_eq!(of(&order, "eth0"), Budget { pps: 200_000, share: 250_000 });
        assert_eq!(of(&order, "eth1"), Budget { pps: 2_000, share: 50_000 });
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_way_out() {
        for (arg, said) in [
            ("0", "from 100 to"),
            ("-1", "from 100 to"),
            ("", "from 100 to"),
            ("0%", "from 0.1% to 100%"),
            ("101%", "from 0.1% to 100%"),
            ("nan%", "from 0.1% to 100%"),
            ("eth0=", "from 100 to"),
            ("eth9=1000", "interface eth9, which is not tapped"),
        ] {
            let text = config(&[arg]).unwrap_err().to_string();
            assert!(text.contains(said) && text.contains("\nhint: "), "{arg}: {text}");
        }
    }
}
