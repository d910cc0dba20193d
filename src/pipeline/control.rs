//! ControlNets: their graphs, and what they make of the rows of a call.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use hydit_graphs::control::{Part, before_name, control_name, count};

use super::batch::RowGroup;
use super::conditioner::Conditioner;
use crate::artifacts::Artifacts;
use crate::error::Result;
use crate::request::Request;
use crate::runtime::{Backend, Session, Value};
use crate::timing::Stage;

/// The ControlNets of a model, each loaded by the first request that names it.
pub(crate) struct Nets {
    loaded: BTreeMap<String, Net>,
    artifacts: Arc<Artifacts>,
    backend: Backend,
}

/// The graphs of a net.
struct Net {
    conditioner: Conditioner,
    encoder: Session,
    /// `None` where the model is cut at its last branch.
    core: Option<Session>,
}

/// What a net reads at every step, for rows that share a call.
pub(crate) struct NetCondition {
    pub name: String,
    /// The steps at which it counts.
    pub steps: Range<usize>,
    /// `[rows, tokens, channels]`: the prompt's states as the net's blocks attend to them.
    pub text_states: Value,
    /// `[rows, channels]`: what is added to the net's embedding of the timestep.
    pub extra: Value,
    /// `[rows, tokens, hidden]`: what the net's image adds to the patches.
    pub hint: Value,
    /// `[rows, 1, 1]`: its weight.
    pub scale: Value,
}

/// What the nets that count at a step have made for rows that share a call.
#[derive(Default)]
pub(crate) struct Controls {
    /// The sums for the shallow decoder, `[rows, tokens, hidden]` each; empty if no net counts.
    shallow: Vec<Value>,
    /// What the core of each net reads.
    inside: Vec<Inside>,
}

struct Inside {
    hidden_states: Value,
    temb: Value,
}

impl Nets {
    /// Loads nothing yet.
    pub fn new(artifacts: &Arc<Artifacts>, backend: &Backend) -> Nets {
        let (artifacts, backend) = (artifacts.clone(), backend.clone());
        Nets { loaded: BTreeMap::new(), artifacts, backend }
    }

    /// Loads those that `request` names and that are not loaded.
    ///
    /// # Errors
    /// When a graph does not load.
    pub fn prepare(&mut self, request: &Request) -> Result<()> {
        let Nets { loaded, artifacts, backend } = self;
        for control in &request.controls {
            if loaded.contains_key(&control.name) {
                continue;
            }
            let _timed = backend.timer().start(Stage::Load);
            let entry = artifacts.manifest.controls.iter().find(|net| net.name == control.name);
            let entry = entry.expect("a checked request names nets of the model");
            let has_core = Part::Core.is_in(&entry.config, artifacts.manifest.cache_at_branch);
            let load = |part: Part| artifacts.load(&part.graph(&entry.name), backend);
            let net = Net {
                conditioner: Conditioner::of_net(entry, artifacts, backend)?,
                encoder: load(Part::Encoder)?,
                core: if has_core { Some(load(Part::Core)?) } else { None },
            };
            loaded.insert(control.name.clone(), net);
        }
        Ok(())
    }

    /// The conditioner of the net `name`, which is loaded.
    pub fn conditioner(&mut self, name: &str) -> &mut Conditioner {
        &mut self.net(name).conditioner
    }

    fn net(&mut self, name: &str) -> &mut Net {
        self.loaded.get_mut(name).expect("a request begins by loading its nets")
    }

    /// Has the graphs of a step give back the memory of their calls, or keep it.
    pub fn set_gives_back(&mut self, gives_back: bool) {
        for Net { encoder, core, .. } in self.loaded.values_mut() {
            encoder.set_gives_back(gives_back);
            core.iter_mut().for_each(|core| core.set_gives_back(gives_back));
        }
    }

    /// Runs the encoders of the nets that count for `group`.
    pub fn encode(&mut self, group: &RowGroup<'_>) -> Result<Controls> {
        let mut controls = Controls::default();
        let timer = self.backend.timer();
        let range = 0..self.artifacts.manifest.cache_at_branch;
        let condition = group.condition();
        for net in group.nets() {
            let (latents, timestep) = (group.latents()?, group.timestep()?);
            let before = before(range.clone(), &controls.shallow, condition.no_control.as_deref());
            let mut inputs: Vec<(&str, &Value)> = vec![
                ("latents", &latents),
                ("timestep", &timestep),
                ("extra", &net.extra),
                ("hint", &net.hint),
                ("text_states", &net.text_states),
                ("conditioning_scale", &net.scale),
            ];
            inputs.extend(condition.rotary());
            inputs.extend(before.iter().map(|(name, value)| (name.as_str(), *value)));
            let Net { encoder, core, .. } = self.net(&net.name);
            let _timed = timer.start(Stage::ControlNets);
            let mut outputs = encoder.run_by_name(&inputs)?;
            let made = outputs.take_all(range.clone().map(control_name))?;
            if core.is_some() {
                let hidden_states = outputs.take("hidden_states")?;
                controls.inside.push(Inside { hidden_states, temb: outputs.take("temb")? });
            }
            drop(outputs);
            controls.shallow = made;
        }
        Ok(controls)
    }

    /// Runs the cores of the nets that count for `group`; gives what the deep core reads of them:
    /// names and values.
    pub fn core(
        &mut self,
        group: &RowGroup<'_>,
        controls: &Controls,
    ) -> Result<Vec<(String, Rc<Value>)>> {
        let manifest = &self.artifacts.manifest;
        let condition = group.condition();
        let dit = manifest.model.transformer.hunyuan_dit();
        let (Some(dit), Some(none)) = (dit, &condition.no_control) else { return Ok(Vec::new()) };
        let range = manifest.cache_at_branch..count(dit);
        let timer = self.backend.timer();
        let mut sums = Vec::new();
        for (net, inside) in group.nets().zip(&controls.inside) {
            let before = before(range.clone(), &sums, Some(none));
            let mut inputs: Vec<(&str, &Value)> = vec![
                ("hidden_states", &inside.hidden_states),
                ("temb", &inside.temb),
                ("text_states", &net.text_states),
                ("conditioning_scale", &net.scale),
            ];
            inputs.extend(condition.rotary());
            inputs.extend(before.iter().map(|(name, value)| (name.as_str(), *value)));
            let core = self.net(&net.name).core.as_mut().expect("it has made something to read");
            let _timed = timer.start(Stage::ControlNets);
            let mut outputs = core.run_by_name(&inputs)?;
            let made = outputs.take_all(range.clone().map(control_name))?;
            drop(outputs);
            sums = made;
        }
        let mut sums = sums.into_iter().map(Rc::new);
        let value = |i| (control_name(i), sums.next().unwrap_or_else(|| none.clone()));
        Ok(range.map(value).collect())
    }
}

impl Controls {
    /// What the shallow decoder reads, names and values: the controls of the first skips, or `none`;
    /// nothing, of an export without ControlNets.
    pub fn of_decoder<'a>(
        &'a self,
        n: usize,
        none: Option<&'a Value>,
    ) -> impl Iterator<Item = (String, &'a Value)> {
        let value = move |i| Some((control_name(i), self.shallow.get(i).or(none)?));
        (0..n).filter_map(value)
    }
}

/// The sums so far of the controls in `range`, or `none`.
fn before<'a>(
    range: Range<usize>,
    sums: &'a [Value],
    none: Option<&'a Value>,
) -> Vec<(String, &'a Value)> {
    let none = none.expect("a model with ControlNets has one");
    let value = |(place, i)| (before_name(i), sums.get(place).unwrap_or(none));
    range.enumerate().map(value).collect()
}
