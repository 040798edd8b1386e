//! Each app its unit: the strongest ties first, ties that are equal are told.

use super::{
    AppFacts, Facts, Tied, Unit,
    score::{LEAST, image_points, score, third_party},
    scripts::Hints,
};
use crate::{
    domain::config::{FILE_NAME, mistake::shown},
    manifests::{look::full_name, read::image_placeholder},
};

/// Which app is run by which unit.
pub(super) struct Assigned {
    /// For each app its unit, as an index.
    pub of: Vec<Option<usize>>,
    /// Units that somebody must say something about first.
    pub asked: Vec<bool>,
}

pub(super) fn assign(facts: &Facts<'_>, units: &[Unit<'_>], hints: &Hints, tied: &mut Tied) -> Assigned {
    let mut table: Vec<(u32, usize, usize)> = Vec::new();
    for (a, app) in facts.apps.iter().enumerate() {
        for (u, unit) in units.iter().enumerate() {
            let points = score(app, unit, hints);
            if points >= LEAST {
                table.push((points, a, u));
            }
        }
    }
    table.sort_by(|x, y| y.0.cmp(&x.0).then(x.1.cmp(&y.1)).then(x.2.cmp(&y.2)));
    let mut assigned: Vec<Option<usize>> = vec![None; facts.apps.len()];
    let mut asked = vec![false; units.len()];
    let mut settled = vec![false; facts.apps.len()];
    let mut taken = vec![false; units.len()];
    for (points, a, u) in &table {
        if settled[*a] || taken[*u] {
            continue;
        }
        let rivals: Vec<usize> = table
            .iter()
            .filter(|(p, app, unit)| p == points && app == a && unit != u && !taken[*unit])
            .map(|(_, _, unit)| *unit)
            .collect();
        let others: Vec<usize> = table
            .iter()
            .filter(|(p, app, unit)| p == points && unit == u && app != a && !settled[*app])
            .map(|(_, app, _)| *app)
            .collect();
        if !rivals.is_empty() {
            settled[*a] = true;
            let all: Vec<usize> = std::iter::once(*u).chain(rivals).collect();
            tied.unclear.push(which(&facts.apps[*a], all.iter().map(|u| &units[*u])));
            for unit in all {
                taken[unit] = true;
                asked[unit] = true;
            }
            continue;
        }
        taken[*u] = true;
        settled[*a] = true;
        if others.is_empty() {
            assigned[*a] = Some(*u);
            continue;
        }
        let apps: Vec<String> =
            std::iter::once(*a).chain(others.iter().copied()).map(|a| shown(facts.apps[a].name.as_str())).collect();
        for other in others {
            settled[other] = true;
        }
        asked[*u] = true;
        tied.unclear.push(format!(
            "{} may run each of the apps {}: name one of them as it is, under `apps` in {FILE_NAME}: `{}:`.",
            units[*u].words(),
            apps.join(", "),
            units[*u].first.name()
        ));
    }
    the_only_ones(facts, units, &mut assigned, &mut settled, &mut taken, tied);
    for unit in open(facts, units, &settled, &taken, tied) {
        taken[unit] = true;
        asked[unit] = true;
    }
    for unit in leftovers(facts, units, &assigned, &taken, tied) {
        asked[unit] = true;
    }
    Assigned { of: assigned, asked }
}

/// One app without a workload and one workload without an app belong together, if nothing speaks against it.
fn the_only_ones(
    facts: &Facts<'_>,
    units: &[Unit<'_>],
    assigned: &mut [Option<usize>],
    settled: &mut [bool],
    taken: &mut [bool],
    tied: &mut Tied,
) {
    let apps: Vec<usize> = (0..facts.apps.len()).filter(|a| !settled[*a]).collect();
    let free: Vec<usize> = (0..units.len()).filter(|u| !taken[*u] && may_be_own(facts, &units[*u])).collect();
    let ([a], [u]) = (apps.as_slice(), free.as_slice()) else { return };
    let (app, unit) = (&facts.apps[*a], &units[*u]);
    // Whose image is written out and is another one than the app's is not taken for it in silence.
    let image = unit.images().first().copied().unwrap_or_default().to_owned();
    let strange = !app.images.is_empty() && !image_placeholder(&image) && image.contains('/');
    if strange && facts.apps.len() > 1 {
        return;
    }
    assigned[*a] = Some(*u);
    settled[*a] = true;
    taken[*u] = true;
    tied.notes.push(format!(
        "{}: runs {}, being the only one left (its image is written as {})",
        unit.words(),
        app.name,
        shown(&image)
    ));
}

/// Whether a unit may run an app of this repository.
fn may_be_own(facts: &Facts<'_>, unit: &Unit<'_>) -> bool {
    let images = unit.images();
    let strange = images
        .iter()
        .any(|image| third_party(image).is_some() && !facts.apps.iter().any(|a| image_points(a, image) > 0));
    !strange && !images.is_empty()
}

/// Apps that nothing was found for, beside workloads that nobody runs: those are asked about.
fn open(facts: &Facts<'_>, units: &[Unit<'_>], settled: &[bool], taken: &[bool], tied: &mut Tied) -> Vec<usize> {
    let free: Vec<usize> = (0..units.len()).filter(|u| !taken[*u] && may_be_own(facts, &units[*u])).collect();
    let left: Vec<&AppFacts> =
        facts.apps.iter().zip(settled).filter(|(_, settled)| !**settled).map(|(a, _)| a).collect();
    let mut asked = Vec::new();
    for app in left {
        // What runs another app's image, and not this one's, is not meant.
        let runs = |unit: &Unit<'_>, own: bool| {
            let of = facts.apps.iter().filter(|a| (a.name == app.name) == own);
            of.flat_map(|a| unit.images().into_iter().map(|i| image_points(a, i))).any(|points| points > 0)
        };
        let may: Vec<usize> =
            free.iter().copied().filter(|u| runs(&units[*u], true) || !runs(&units[*u], false)).collect();
        if may.is_empty() {
            tied.notes
                .push(format!("{}: no manifest runs it: a plain Deployment and Service are made for it", app.name));
        } else {
            tied.unclear.push(which(app, may.iter().map(|u| &units[*u])));
            asked.extend(may);
        }
    }
    asked
}

/// The question, and the line that answers it.
fn which<'u, 'o: 'u>(app: &AppFacts, units: impl Iterator<Item = &'u Unit<'o>>) -> String {
    let units: Vec<&Unit<'_>> = units.collect();
    let words: Vec<String> = units.iter().take(4).map(|u| u.words()).collect();
    let image = units.iter().flat_map(|u| u.images()).find(|i| !image_placeholder(i));
    let same = app.image_of.is_some() || units.iter().all(|u| u.images() == units[0].images());
    let line = match image {
        // The same image in all of them: only names can tell them apart.
        Some(image) if !same => {
            format!("`image: {}` with the name of the right one's image, under `apps.{}`", full_name(image), app.name)
        }
        _ => format!(
            "the app's name as the right one is called: `{}:` in place of `{}:`, under `apps`",
            units[0].first.name(),
            app.name
        ),
    };
    format!(
        "{}: it is not clear what runs it: {}. Write {line} in {FILE_NAME}.",
        app.name,
        if words.len() == 1 { format!("perhaps {}", words[0]) } else { words.join(", or ") }
    )
}

/// Workloads that no app was found for, and that run an app's image: they are told.
fn leftovers(
    facts: &Facts<'_>,
    units: &[Unit<'_>],
    assigned: &[Option<usize>],
    taken: &[bool],
    tied: &mut Tied,
) -> Vec<usize> {
    let mut told = Vec::new();
    for (u, unit) in units.iter().enumerate().filter(|(u, _)| !taken[*u]) {
        let images = unit.images();
        let same = |other: &Unit<'_>| {
            let own: Vec<String> =
                other.images().iter().filter(|i| !image_placeholder(i)).map(|i| full_name(i)).collect();
            images.iter().any(|i| third_party(i).is_none() && own.contains(&full_name(i)))
        };
        let of = facts.apps.iter().zip(assigned).find(|(app, unit)| {
            images.iter().any(|image| image_points(app, image) > 0) || unit.is_some_and(|u| same(&units[u]))
        });
        let Some((app, _)) = of else { continue };
        told.push(u);
        tied.warnings.push(format!(
            "{} runs the image of {} too, and no app is named so: it is left as it is, with its old image. To release it \
             with the others, write `{}: {{image_of: {}}}` under `apps` in {FILE_NAME}, with `kind: worker` if it answers \
             no requests.",
            unit.words(),
            app.name,
            unit.first.name(),
            app.name
        ));
    }
    told
}

/// Whether a workload that no app was found for is applied beside them: databases and the like are, other repositories'
/// apps are not.
pub(super) fn beside(facts: &Facts<'_>, unit: &Unit<'_>) -> bool {
    let images = unit.images();
    if images.is_empty() || images.iter().any(|i| facts.apps.iter().any(|a| image_points(a, i) > 0)) {
        return false;
    }
    if images.iter().any(|image| third_party(image).is_some()) {
        return true;
    }
    // Somebody else's image, from a registry's folder that none of the apps' images is in.
    // The same maker behind another registry is the same.
    let owner = |image: &str| {
        let name = full_name(image);
        let (_, path) = name.split_once('/')?;
        path.rsplit_once('/').map(|(owner, _)| owner.to_owned())
    };
    let own: Vec<Option<String>> = facts.apps.iter().flat_map(|a| &a.images).map(|i| owner(i)).collect();
    images.iter().all(|image| {
        let plain = !image_placeholder(image);
        plain
            && full_name(image) != "docker.io/library/"
            && !own.is_empty()
            && !own.contains(&owner(image))
            && image.contains('/')
    })
}
