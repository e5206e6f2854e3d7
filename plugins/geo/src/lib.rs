//! `geo`: distances on the globe, and the city that is nearest to a position.
//!
//! It is an example of a plugin as well: two functions, one that cannot fail and one that can, and a stage with a cache, whose
//! memory is bounded by an argument and declared to the host without further ado.

mod cities;
mod locate;

pub use locate::Locate;
use standpipe_sdk::prelude::*;

/// The mean radius of the earth, in metres.
const RADIUS: f64 = 6_371_008.8;

/// Great-circle distance of two positions in degrees, in metres.
#[scalar(example = "round(geo.haversine(52.52, 13.405, 48.857, 2.352) / 1000) == 877")]
pub fn haversine(lat1: f64, lon1: f64, lat2: f64, lon2: f64) -> f64 {
    let half = |from: f64, to: f64| ((to - from).to_radians() / 2.0).sin().powi(2);
    let a = half(lat1, lat2) + lat1.to_radians().cos() * lat2.to_radians().cos() * half(lon1, lon2);
    // Rounding may carry the opposite side of the globe a little too far.
    let a = if a > 1.0 { 1.0 } else { a };
    2.0 * RADIUS * a.sqrt().asin()
}

/// The geohash of a position: so many letters that name a cell of the globe.
#[scalar(example = "geo.geohash(57.64911, 10.40744, 11) == \"u4pruydqqvj\"")]
pub fn geohash(lat: f64, lon: f64, letters: i64) -> Result<String, String> {
    const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
    check(lat, lon)?;
    if !(1..=12).contains(&letters) {
        return Err(format!("a geohash has 1 to 12 letters, not {letters}"));
    }
    let (mut lats, mut lons) = ((-90.0, 90.0), (-180.0, 180.0));
    let mut hash = String::new();
    for letter in 0..letters {
        let mut index = 0;
        for bit in 0..5 {
            // Longitude and latitude take turns, a letter has five bits.
            let (range, value) = match (letter * 5 + bit) % 2 {
                0 => (&mut lons, lon),
                _ => (&mut lats, lat),
            };
            let middle = (range.0 + range.1) / 2.0;
            let is_above = value >= middle;
            if is_above {
                range.0 = middle;
            } else {
                range.1 = middle;
            }
            index = index * 2 + usize::from(is_above);
        }
        hash.push(char::from(ALPHABET[index]));
    }
    Ok(hash)
}

/// What is wrong with a position.
fn check(lat: f64, lon: f64) -> Result<(), String> {
    if !(-90.0..=90.0).contains(&lat) {
        return Err(format!("the latitude {lat} is not within -90 to 90"));
    }
    if !(-180.0..=180.0).contains(&lon) {
        return Err(format!("the longitude {lon} is not within -180 to 180"));
    }
    Ok(())
}

standpipe_sdk::export! {
    id: "org.standpipe.geo",
    functions: [haversine, geohash],
    stages: [Locate],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let near = |got: f64, want: f64| assert!((got - want).abs() < 1.0, "{got} for {want}");
        near(haversine(1.0, 2.0, 1.0, 2.0), 0.0);
        // A quarter and a half of a great circle.
        near(haversine(0.0, 0.0, 90.0, 77.0), RADIUS * std::f64::consts::FRAC_PI_2);
        near(haversine(0.0, -90.0, 0.0, 90.0), RADIUS * std::f64::consts::PI);
        assert!(haversine(f64::NAN, 0.0, 0.0, 0.0).is_nan());
    }

    #[test]
    fn geohashes() {
        assert_eq!(geohash(57.64911, 10.40744, 11).unwrap(), "u4pruydqqvj");
        assert_eq!(geohash(-90.0, -180.0, 2).unwrap(), "00");
        assert_eq!(geohash(90.0, 180.0, 2).unwrap(), "zz");
        for (lat, lon, letters) in [(90.1, 0.0, 5), (0.0, f64::NAN, 5), (0.0, 0.0, 0), (0.0, 0.0, 13)] {
            assert!(geohash(lat, lon, letters).is_err());
        }
    }
}
