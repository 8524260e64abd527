//! The picture of the rooms in docs/architecture.svg is drawn from the code: `SHARDLOOM_DRAW=1 cargo test
//! --test picture` draws it anew.

#![allow(clippy::unwrap_used, reason = "a test may stop on the spot")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Width and height of a room, and the space between rooms, in pixels.
const ROOM: (usize, usize) = (132, 44);
const GAP: (usize, usize) = (24, 46);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The source files of a room: a folder, or a file beside `lib.rs`.
fn files(room: &Path) -> Vec<PathBuf> {
    if room.is_file() {
        return vec![room.to_path_buf()];
    }
    let entries = std::fs::read_dir(room).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .collect()
}

/// Room → the rooms that it imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// Reads them from the code.
fn imports() -> Imports {
    let mut rooms = BTreeMap::new();
    for entry in std::fs::read_dir(root().join("src")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if !["lib", "main"].contains(&name.as_str()) {
            rooms.insert(name, path);
        }
    }
    let names: BTreeSet<String> = rooms.keys().cloned().collect();
    let imported = |own: &String, path: &PathBuf| {
        let mut found = BTreeSet::new();
        for file in files(path)
            .iter()
            .filter(|file| !file.ends_with("tests.rs"))
        {
            let text = std::fs::read_to_string(file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            let lines = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            for used in lines.flat_map(|line| line.split("crate::").skip(1)) {
                let end = used.find(|c: char| !c.is_alphanumeric() && c != '_');
                found.insert(used[..end.unwrap_or(used.len())].to_owned());
            }
        }
        found.retain(|name| names.contains(name) && name != own);
        found
    };
    let all = rooms
        .iter()
        .map(|(own, path)| (own.clone(), imported(own, path)));
    all.collect()
}

/// How many floors are above a room: one more than above the lowest that imports it.
fn depth(room: &str, imports: &Imports) -> usize {
    let by = imports.iter().filter(|(_, others)| others.contains(room));
    let above = by.map(|(other, _)| depth(other, imports) + 1);
    above.max().unwrap_or(0)
}

/// All that a room reaches.
fn reached(room: &str, imports: &Imports) -> BTreeSet<String> {
    let mut all = imports[room].clone();
    for other in &imports[room] {
        all.extend(reached(other, imports));
    }
    all
}

/// A place on a floor: a room, or where an arrow passes between rooms.
type Spot = (usize, String);

/// The arrows as ways from floor to floor: each from a room, by places on the floors between, to a room. An
/// arrow that others together make is left out.
fn ways(imports: &Imports) -> Vec<Vec<Spot>> {
    let mut ways = Vec::new();
    for (room, others) in imports {
        let by_way = |other: &&String| !others.iter().any(|o| reached(o, imports).contains(*other));
        for other in others.iter().filter(by_way) {
            let (from, to) = (depth(room, imports), depth(other, imports));
            let between = (from + 1..to).map(|floor| (floor, format!("{room} > {other}")));
            let ends = ((from, room.clone()), (to, other.clone()));
            ways.push(
                [ends.0]
                    .into_iter()
                    .chain(between)
                    .chain([ends.1])
                    .collect(),
            );
        }
    }
    ways
}

/// Where each spot is, from the left, in pixels: in rows, near what it is tied to.
fn arranged(imports: &Imports, ways: &[Vec<Spot>]) -> BTreeMap<Spot, usize> {
    let mut floors: BTreeMap<usize, Vec<Spot>> = BTreeMap::new();
    let rooms = imports
        .keys()
        .map(|room| (depth(room, imports), room.clone()));
    let spots: BTreeSet<Spot> = rooms.chain(ways.iter().flatten().cloned()).collect();
    for spot in spots {
        floors.entry(spot.0).or_default().push(spot);
    }
    let wide = |spot: &Spot| {
        if spot.1.contains('>') {
            GAP.0
        } else {
            ROOM.0 + GAP.0
        }
    };
    let widths = floors
        .values()
        .map(|floor| floor.iter().map(wide).sum::<usize>());
    let width: usize = widths.max().unwrap();
    let mut places: BTreeMap<Spot, usize> = BTreeMap::new();
    for sweep in 0..8 {
        let mut order: Vec<usize> = floors.keys().copied().collect();
        if sweep % 2 == 1 {
            order.reverse();
        }
        for floor in order {
            let tied = |spot: &Spot| {
                let pairs = ways.iter().flat_map(|way| way.windows(2));
                let ends = pairs.filter_map(|pair| match (&pair[0] == spot, &pair[1] == spot) {
                    (true, _) => places.get(&pair[1]),
                    (_, true) => places.get(&pair[0]),
                    _ => None,
                });
                let ends: Vec<usize> = ends.copied().collect();
                ends.iter().sum::<usize>() / ends.len().max(1)
            };
            let row = floors.get_mut(&floor).unwrap();
            row.sort_by_cached_key(|spot| (tied(spot), spot.clone()));
            let total: usize = row.iter().map(wide).sum();
            let mut left = GAP.0 + (width - total) / 2;
            for spot in row {
                places.insert(spot.clone(), left + wide(spot) / 2);
                left += wide(spot);
            }
        }
    }
    places
}

fn draw(imports: &Imports) -> String {
    let ways = ways(imports);
    let places = arranged(imports, &ways);
    let width = places.values().max().unwrap() + ROOM.0;
    let top = |floor: usize| GAP.1 / 2 + floor * (ROOM.1 + GAP.1);
    let height = top(places.keys().map(|spot| spot.0).max().unwrap() + 1);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"15\" role=\"img\">\n\
         <title>The rooms of shardloom: each imports what stands below it</title>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for way in &ways {
        let start = &way[0];
        let mut path = format!("M{} {}", places[start], top(start.0) + ROOM.1);
        for pair in way.windows(2) {
            let (from, to) = (top(pair[0].0) + ROOM.1, top(pair[1].0));
            let (x, to_x, bend) = (places[&pair[0]], places[&pair[1]], (from + to) / 2);
            write!(path, "C{x} {bend} {to_x} {bend} {to_x} {to}").unwrap();
            if pair[1].1.contains('>') {
                write!(path, "V{}", to + ROOM.1).unwrap();
            }
        }
        let stroke = "fill=\"none\" stroke=\"#9aa5b1\" stroke-width=\"1.5\"";
        writeln!(svg, "<path d=\"{path}\" {stroke}/>").unwrap();
    }
    for room in imports.keys() {
        let spot = (depth(room, imports), room.clone());
        let (x, y) = (places[&spot], top(spot.0));
        writeln!(
            svg,
            "<rect x=\"{}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"6\" fill=\"#eef3f8\" stroke=\"#44617b\"/>\n\
             <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" fill=\"#1d2b38\">{room}</text>",
            x - ROOM.0 / 2,
            ROOM.0,
            ROOM.1,
            y + ROOM.1 / 2 + 5
        )
        .unwrap();
    }
    svg + "</svg>\n"
}

#[test]
fn the_picture_of_the_rooms_is_that_of_the_code() {
    let drawn = draw(&imports());
    let path = root().join("docs/architecture.svg");
    if std::env::var_os("SHARDLOOM_DRAW").is_some() {
        std::fs::write(&path, &drawn).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        known == drawn,
        "the rooms have changed: SHARDLOOM_DRAW=1 cargo test --test picture draws them"
    );
}
