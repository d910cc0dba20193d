//! The parts of a step one by one, on all lanes of a [`Walk`].

use crate::cache::Forecast;
use crate::error::Result;
use crate::pipeline::denoise::{Place, Walk};
use crate::pipeline::transformer::{Dit, Lane, Shallow};
use crate::runtime::Value;

impl Walk {
    /// Back to `place`, with nothing kept.
    pub(super) fn go_back(&mut self, place: &Place) {
        self.place = place.clone();
        self.lanes.iter_mut().for_each(Lane::forget);
    }

    /// The shallow encoder's output where the walk is.
    pub(super) fn encode(&mut self, dit: &mut Dit) -> Result<Vec<Shallow>> {
        self.arrive()?;
        self.lanes.iter().map(|lane| dit.encode(lane, &self.timestep)).collect()
    }

    /// The core's output; nothing is kept.
    pub(super) fn core(&self, dit: &mut Dit, shallow: &[Shallow]) -> Result<Vec<Value>> {
        self.lanes.iter().zip(shallow).map(|(lane, shallow)| dit.core(lane, shallow)).collect()
    }

    /// The guided prediction made with `deep` for the core's output.
    pub(super) fn decode(
        &mut self,
        dit: &mut Dit,
        shallow: &[Shallow],
        deep: &[Value],
    ) -> Result<Vec<f32>> {
        let parts = self.lanes.iter().zip(shallow).zip(deep);
        let decoded: Vec<Value> = parts
            .map(|((lane, shallow), deep)| dit.decode(lane, shallow, deep))
            .collect::<Result<_>>()?;
        self.guided(&decoded)
    }

    /// The guided prediction made with a forecast.
    pub(super) fn forecast(
        &mut self,
        dit: &mut Dit,
        shallow: &[Shallow],
        forecast: Forecast,
    ) -> Result<Vec<f32>> {
        if forecast == Forecast::LAST {
            return self.kept(dit, shallow, 0);
        }
        let blend = |lane| dit.forecast(lane, forecast);
        let deep = self.lanes.iter().map(blend).collect::<Result<Vec<_>>>()?;
        self.decode(dit, shallow, &deep)
    }

    /// The guided predictions made with each kept output alone, less that made with the core's, the
    /// latest first.
    pub(super) fn errors(&mut self, dit: &mut Dit, shallow: &[Shallow]) -> Result<Vec<Vec<f32>>> {
        let deep = self.core(dit, shallow)?;
        let exact = self.decode(dit, shallow, &deep)?;
        let kept = self.lanes[0].kept().len();
        let error = |i| -> Result<Vec<f32>> {
            let mut guided = self.kept(dit, shallow, i)?;
            guided.iter_mut().zip(&exact).for_each(|(guided, exact)| *guided -= exact);
            Ok(guided)
        };
        (0..kept).map(error).collect()
    }

    fn kept(&mut self, dit: &mut Dit, shallow: &[Shallow], i: usize) -> Result<Vec<f32>> {
        let parts = self.lanes.iter().zip(shallow);
        let decoded: Vec<Value> = parts
            .map(|(lane, shallow)| dit.decode(lane, shallow, &lane.kept()[i]))
            .collect::<Result<_>>()?;
        self.guided(&decoded)
    }
}
