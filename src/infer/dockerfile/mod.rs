//! What a Dockerfile says, read the way BuildKit reads it, but never refused.
//!
//! Source: "Dockerfile reference": directives, continuation lines, here-documents, variables, stages. The engine has the
//! last word on whether it is right; this reader finds the base images, the sources of `COPY`, the ports, and the line
//! of an instruction that failed.

mod text;

use std::collections::{BTreeMap, BTreeSet};

pub use text::expand;
use text::{assignments, directives, flag, instructions, mounted, words};

/// The largest Dockerfile that is read, in bytes. BuildKit itself stops at 2 MiB.
pub const MAX_DOCKERFILE: usize = 1024 * 1024;

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Its first line, from 1.
    pub line: usize,
    /// `FROM`, `RUN`, …: in capitals, known or not.
    pub keyword: String,
    /// What follows, with continuation lines joined.
    pub text: String,
}

/// Where a stage begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// `AS name`, in lower case.
    pub name: Option<String>,
    /// Its base, variables put in; empty where a variable has no value.
    pub base: String,
    /// The index of its `FROM` in [`Dockerfile::instructions`].
    pub at: usize,
}

/// A `COPY` or `ADD` out of the build context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Its line.
    pub line: usize,
    /// Sources from the context's root, variables put in, without leading slashes.
    pub sources: Vec<String>,
}

/// A Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// All instructions in order.
    pub instructions: Vec<Instruction>,
    /// All stages in order.
    pub stages: Vec<Stage>,
    /// The frontend that a `# syntax=` directive names.
    pub syntax: Option<String>,
    global: BTreeMap<String, String>,
    args: BTreeMap<String, String>,
}

impl Dockerfile {
    /// Reads a Dockerfile. `args` are build arguments, which win over defaults.
    #[must_use]
    pub fn read(text: &str, args: &BTreeMap<String, String>) -> Self {
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        let (escape, syntax) = directives(text);
        let instructions = instructions(text, escape);
        let mut it = Self { instructions, stages: Vec::new(), syntax, global: BTreeMap::new(), args: args.clone() };
        it.find_stages();
        it
    }

    fn find_stages(&mut self) {
        for at in 0..self.instructions.len() {
            let (keyword, text) = (&self.instructions[at].keyword, &self.instructions[at].text);
            if keyword == "ARG" && self.stages.is_empty() {
                for (name, default) in assignments(text) {
                    let value = match (self.args.get(&name), default) {
                        (Some(given), _) => given.clone(),
                        (None, Some(default)) => expand(&default, &self.global),
                        (None, None) => continue,
                    };
                    self.global.insert(name, value);
                }
            } else if keyword == "FROM" {
                let words: Vec<&str> = text.split_whitespace().filter(|w| !w.starts_with("--")).collect();
                let base = expand(words.first().copied().unwrap_or_default(), &self.global);
                let name = match words.get(1) {
                    Some(word) if word.eq_ignore_ascii_case("as") => words.get(2).map(|n| n.to_lowercase()),
                    _ => None,
                };
                self.stages.push(Stage { name, base, at });
            }
        }
    }

    /// The stage that a name or a number means, of those before `before`.
    fn stage(&self, name: &str, before: usize) -> Option<usize> {
        let known = &self.stages[..before.min(self.stages.len())];
        known
            .iter()
            .rposition(|s| s.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(name)))
            .or_else(|| name.parse::<usize>().ok().filter(|n| *n < known.len()))
    }

    /// The instructions of a stage, its `FROM` included.
    #[must_use]
    pub fn of_stage(&self, stage: usize) -> &[Instruction] {
        let Some(from) = self.stages.get(stage) else { return &[] };
        let end = self.stages.get(stage + 1).map_or(self.instructions.len(), |next| next.at);
        &self.instructions[from.at..end]
    }

    /// The last stage and those that it is built on by `FROM`, the outermost base first.
    fn chain(&self) -> Vec<usize> {
        let Some(mut at) = self.stages.len().checked_sub(1) else { return Vec::new() };
        let mut chain = vec![at];
        // A stage's base stands before it, so this ends.
        while let Some(base) = self.stage(&self.stages[at].base, at) {
            chain.push(base);
            at = base;
        }
        chain.reverse();
        chain
    }

    /// The base of the image that is made: what its chain of stages begins with.
    #[must_use]
    pub fn final_base(&self) -> Option<&str> {
        self.chain().first().map(|s| self.stages[*s].base.as_str()).filter(|b| !b.is_empty())
    }

    /// The images from a registry that the last stage needs, in order, each once; with the line that names it.
    /// A stage that the last one does not need is not built by BuildKit; the older builder builds all, and says itself
    /// what it misses.
    #[must_use]
    pub fn images(&self) -> Vec<(usize, String)> {
        let mut needed = BTreeSet::new();
        let mut left: Vec<usize> = self.stages.len().checked_sub(1).into_iter().collect();
        let mut found = Vec::new();
        while let Some(stage) = left.pop() {
            if !needed.insert(stage) {
                continue;
            }
            let mut variables = self.global.clone();
            for (n, instruction) in self.of_stage(stage).iter().enumerate() {
                let names: Vec<String> = match instruction.keyword.as_str() {
                    "FROM" if n == 0 => vec![self.stages[stage].base.clone()],
                    "COPY" => flag(&instruction.text, "--from").into_iter().collect(),
                    "RUN" => mounted(&instruction.text),
                    _ => Vec::new(),
                };
                self.assign(instruction, &mut variables);
                for name in names {
                    let name = expand(&name, &variables);
                    match self.stage(&name, stage) {
                        Some(other) => left.push(other),
                        // A number that is no stage is a mistake, which the engine tells.
                        None if name.is_empty() || name == "scratch" || name.parse::<usize>().is_ok() => {}
                        None => found.push((instruction.line, name)),
                    }
                }
            }
        }
        found.extend(self.syntax.iter().map(|s| (1, s.clone())));
        found.sort();
        let mut seen = BTreeSet::new();
        found.retain(|(_, name)| seen.insert(name.clone()));
        found
    }

    /// What `ARG` and `ENV` say, put into the variables of a stage.
    fn assign(&self, instruction: &Instruction, variables: &mut BTreeMap<String, String>) {
        let set = assignments(&instruction.text);
        match instruction.keyword.as_str() {
            "ENV" => {
                // All of one ENV see what stood before it.
                let before = variables.clone();
                for (name, value) in set {
                    variables.insert(name, expand(&value.unwrap_or_default(), &before));
                }
            }
            "ARG" => {
                for (name, default) in set {
                    let value = match (self.args.get(&name), default) {
                        (Some(given), _) => Some(given.clone()),
                        (None, Some(default)) => Some(expand(&default, variables)),
                        (None, None) => self.global.get(&name).cloned(),
                    };
                    if let Some(value) = value {
                        variables.insert(name, value);
                    }
                }
            }
            _ => {}
        }
    }

    /// Walks the chain of the last stage with the variables that hold at each instruction.
    fn walk(&self, mut see: impl FnMut(&Instruction, &BTreeMap<String, String>)) {
        // ENV is inherited from stage to stage; that an ARG is not, changes nothing for a port.
        let mut variables = BTreeMap::new();
        for stage in self.chain() {
            for instruction in self.of_stage(stage) {
                self.assign(instruction, &mut variables);
                see(instruction, &variables);
            }
        }
    }

    /// The TCP ports that the image exposes, in order, with their lines. A range counts as its first port.
    #[must_use]
    pub fn ports(&self) -> Vec<(usize, u16)> {
        let mut ports: Vec<(usize, u16)> = Vec::new();
        self.walk(|instruction, variables| {
            if instruction.keyword != "EXPOSE" {
                return;
            }
            let text = expand(&instruction.text, variables);
            for word in text.split_whitespace().filter(|w| !w.to_lowercase().ends_with("/udp")) {
                let number = word.split('/').next().unwrap_or_default().split('-').next().unwrap_or_default();
                if let Ok(port @ 1..) = number.parse::<u16>()
                    && !ports.iter().any(|(_, p)| *p == port)
                {
                    ports.push((instruction.line, port));
                }
            }
        });
        ports
    }

    /// The value of an environment variable in the image that is made.
    #[must_use]
    pub fn environment(&self, name: &str) -> Option<String> {
        let mut value = None;
        self.walk(|instruction, variables| {
            if instruction.keyword == "ENV" && assignments(&instruction.text).iter().any(|(n, _)| n == name) {
                value = variables.get(name).cloned();
            }
        });
        value
    }

    /// What is copied out of the context, in all stages.
    #[must_use]
    pub fn copied(&self) -> Vec<Copied> {
        let mut all = Vec::new();
        for stage in 0..self.stages.len() {
            let mut variables = self.global.clone();
            for instruction in self.of_stage(stage) {
                self.assign(instruction, &mut variables);
                if !matches!(instruction.keyword.as_str(), "COPY" | "ADD")
                    || flag(&instruction.text, "--from").is_some()
                {
                    continue;
                }
                let mut words = words(&instruction.text);
                words.pop();
                let sources: Vec<String> = words
                    .iter()
                    .map(|w| expand(w, &variables))
                    .filter(|w| !w.contains("://") && !w.starts_with("git@") && !w.starts_with("<<"))
                    .map(|w| w.trim_start_matches("./").trim_start_matches('/').to_owned())
                    .collect();
                if !sources.is_empty() {
                    all.push(Copied { line: instruction.line, sources });
                }
            }
        }
        all
    }

    /// The instruction that a step of the builder means. BuildKit names a step `[stage 2/5] RUN …`, where the numbers
    /// count what changes files in that stage and its base; the older builder says `Step 2/9 : RUN …` over all.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&Instruction> {
        if let Some(rest) = name.strip_prefix("Step ") {
            let number: usize = rest.split('/').next()?.trim().parse().ok()?;
            return self.instructions.get(number.checked_sub(1)?);
        }
        let (place, text) = name.strip_prefix('[')?.split_once(']')?;
        let (keyword, said) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        self.by_number(place).filter(|i| i.keyword.eq_ignore_ascii_case(keyword)).or_else(|| {
            let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            self.instructions.iter().find(|i| i.keyword.eq_ignore_ascii_case(keyword) && flat(&i.text) == flat(said))
        })
    }

    /// `build 2/5`, `linux/amd64 stage-1 2/5`, `2/5`.
    fn by_number(&self, place: &str) -> Option<&Instruction> {
        let mut words = place.split_whitespace().rev();
        let number: usize = words.next()?.split('/').next()?.parse().ok()?;
        let stage = match words.next() {
            None => self.stages.len().checked_sub(1)?,
            Some(named) => {
                let by_number = || named.strip_prefix("stage-")?.parse().ok();
                self.stage(named, self.stages.len()).or_else(by_number)?
            }
        };
        let base = &self.stages.get(stage)?.base;
        let from = base != "scratch" && self.stage(base, stage).is_none();
        let counted = |i: &&Instruction| match i.keyword.as_str() {
            "FROM" => from,
            "RUN" | "COPY" | "ADD" | "WORKDIR" => true,
            _ => false,
        };
        self.of_stage(stage).iter().filter(counted).nth(number.checked_sub(1)?)
    }
}
