//! `geo.locate lat, lon`: the nearest city of a position.
//!
//! Laws
//! - What comes out does not depend on the cache: it only remembers answers for the very same numbers.
//! - The cache has at most so many entries as `cache:` says; a full one is emptied, so that it follows the data.

use crate::cities::CITIES;
use crate::{check, haversine};
use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::prelude::*;
use standpipe_sdk::{Code, Verdict};
use std::collections::HashMap;

/// Adds the city that is nearest to a position, its country, and how far away it is, in metres.
#[derive(Params)]
pub struct Locate {
    /// the latitude
    lat: ColumnArg,
    /// the longitude, both in degrees
    lon: ColumnArg,
    /// the farthest that a city may be away, in metres; behind it there is none
    within: Option<f64>,
    /// how many positions are remembered, per worker
    #[param(default = 10_000)]
    cache: usize,
}

/// A value of an argument that cannot be.
const WRONG_VALUE: Code = Code(501);
/// A column that is there already.
const TWICE: Code = Code(507);
/// A bad row.
const BAD_POSITION: Code = Code(805);

const ADDED: [&str; 3] = ["city", "country", "away"];

impl Transform for Locate {
    const NAME: &'static str = "locate";
    const MEMORY: Memory = Memory::Constant;
    const EXAMPLES: &'static [Example] = &[Example {
        script: "use plugin geo\nfrom rows [{lat: 52.5, lon: 13.4}, {lat: 0.0, lon: 0.0}, {lat: null, lon: 1.0}]\n  | geo.locate lat, lon, within: 10_000\n  | select lat, city, country",
        output: "lat,city,country\n52.5,Berlin,DE\n0.0,,\n,,\n",
    }];

    fn bind(self, call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
        self.lat.must_be(call, &Type::Float)?;
        self.lon.must_be(call, &Type::Float)?;
        let span = |option: &str| call.option(option).map_or(call.span, |item| item.span);
        if let Some(within) = self.within.filter(|within| *within < 0.0 || within.is_nan()) {
            let message = format!("`within` cannot be {within}");
            return Err(vec![Complaint::new(
                WRONG_VALUE,
                span("within"),
                message,
                "not a distance",
            )]);
        }
        if let Some(name) = ADDED
            .iter()
            .find(|name| call.own_fields().iter().any(|field| &*field.name == **name))
        {
            let message = format!("there is a column `{name}` already");
            return Err(vec![
                Complaint::new(TWICE, call.span, message, "adds it").help(format!("`drop {name}` before")),
            ]);
        }
        let [city, country, away] = ADDED;
        let added = [
            Field::new(city, Type::String, true),
            Field::new(country, Type::String, true),
            Field::new(away, Type::Float, true),
        ];
        let (lat, lon, most) = (self.lat.at, self.lon.at, self.cache);
        let within = self.within.unwrap_or(f64::INFINITY);
        let make = Make::RowWise(Box::new(move |_| {
            Ok(Box::new(Finder {
                lat,
                lon,
                within,
                most,
                known: HashMap::new(),
            }))
        }));
        Ok(Bound::adds(call, &added, vec![lat, lon], make).rejecting())
    }
}

/// The nearest city, and its distance.
type Found = (usize, f64);

struct Finder {
    lat: usize,
    lon: usize,
    within: f64,
    most: usize,
    known: HashMap<(u64, u64), Found>,
}

impl Finder {
    fn find(&mut self, lat: f64, lon: f64) -> Option<Found> {
        let key = (lat.to_bits(), lon.to_bits());
        if let Some(found) = self.known.get(&key) {
            return Some(*found);
        }
        let distances = CITIES.iter().map(|city| haversine(lat, lon, city.lat, city.lon));
        let found = distances.enumerate().min_by(|a, b| a.1.total_cmp(&b.1))?;
        if self.known.len() >= self.most {
            self.known.clear();
        }
        if self.most > 0 && self.known.try_reserve(1).is_ok() {
            self.known.insert(key, found);
        }
        Some(found)
    }
}

impl RowWise for Finder {
    fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        let (arena, rows) = (out.arena(), batch.rows());
        let (lats, lons) = (batch.column(self.lat), batch.column(self.lon));
        let found = arena.fill(rows, None::<Found>)?;
        let mut end = rows;
        if let (Data::Float(lat), Data::Float(lon)) = (lats.data(), lons.data()) {
            for (row, found) in found.iter_mut().enumerate() {
                if !lats.is_valid(row) || !lons.is_valid(row) {
                    continue;
                }
                if let Err(what) = check(lat[row], lon[row]) {
                    if out.reject(row, BAD_POSITION, None, format_args!("{what}"))? == Verdict::Stop {
                        end = row;
                        break;
                    }
                    continue;
                }
                *found = self.find(lat[row], lon[row]).filter(|(_, away)| *away <= self.within);
            }
        }
        let (mut cities, mut countries) = (TextBuilder::new(arena, rows, 0)?, TextBuilder::new(arena, rows, 0)?);
        for found in &*found {
            let city = found.and_then(|(at, _)| CITIES.get(at));
            cities.push(city.map_or("", |city| city.name))?;
            countries.push(city.map_or("", |city| city.country))?;
        }
        let away = arena.map(found, |found| found.map_or(0.0, |(_, away)| away))?;
        let valid = Bits::collect(arena, rows, |row| found[row].is_some())?;
        let made = [
            Column::string(cities.finish()?, Some(valid)),
            Column::string(countries.finish()?, Some(valid)),
            Column::float(away, Some(valid)),
        ];
        let wider = batch.beside(&made, arena)?;
        out.last(wider.head(end, arena)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use standpipe_sdk::table;
    use standpipe_sdk::testing::{self, Drive, NULL, Table};

    fn locate() -> Drive {
        testing::stage::<Locate>("id: int, lat: float?, lon: float?")
            .column("lat")
            .column("lon")
    }

    fn positions() -> Table {
        table![
            "id: int, lat: float?, lon: float?";
            1, 52.5, 13.4;
            2, 48.9, NULL;
            3, 91.0, 0.0;
            4, 0.0, 0.0;
            5, 52.5, 13.4;
        ]
    }

    #[test]
    fn cities_stand_beside_their_positions() {
        insta::assert_snapshot!(locate().run(&positions()));
        insta::assert_snapshot!(locate().option("within", 10_000).run(&positions()));
    }

    #[test]
    fn the_cache_changes_nothing_and_a_refusal_can_be_repeated() {
        let want = locate().run(&positions());
        for cache in [0, 1, 2] {
            assert_eq!(locate().option("cache", cache).run(&positions()), want, "{cache}");
        }
        let ready = locate()
            .bind()
            .map_err(|refused| refused.to_string())
            .expect("they are right");
        assert_eq!(ready.run_refusing(&positions()), want);
    }

    #[test]
    fn wrong_arguments_are_named() {
        let here = "city: string, lat: float, lon: float, n: int";
        let cases = [
            locate().option("within", -1),
            locate().option("cache", -1),
            testing::stage::<Locate>(here).column("lat").column("n"),
            testing::stage::<Locate>(here).column("lat").column("lon"),
        ];
        let said: Vec<String> = cases.map(|case| case.refuses().to_string()).into();
        insta::assert_snapshot!(said.concat());
    }
}
