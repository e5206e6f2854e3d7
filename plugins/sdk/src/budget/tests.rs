//! Budgets, parts of them and reservations, by their numbers.

use super::*;

#[test]
fn a_part_is_never_free_in_between() {
    let budget = Budget::new(100);
    let mut all = budget.reserve();
    all.grow(100).unwrap();
    let part = all.split(30).unwrap();
    assert_eq!((all.bytes(), part.bytes(), budget.used()), (70, 30, 100));
    drop(all);
    assert_eq!(budget.used(), 30);
    drop(part);
    let mut floor = budget.reserve();
    floor.set_aside(60).unwrap();
    floor.grow(60).unwrap();
    let part = floor.split(40).unwrap();
    assert_eq!((floor.bytes(), part.bytes(), budget.used()), (20, 40, 100));
    assert!(floor.split(1).is_err());
    assert_eq!((floor.bytes(), budget.used()), (20, 100));
}

#[test]
fn two_reservations_become_one() {
    let budget = Budget::new(100);
    let (mut a, mut b) = (budget.reserve(), budget.reserve());
    a.grow(30).unwrap();
    b.grow(70).unwrap();
    a.join(b);
    assert_eq!((a.bytes(), budget.used()), (100, 100));
    let mut floor = budget.reserve();
    let part = a.split(60).unwrap();
    drop(a);
    floor.set_aside(40).unwrap();
    floor.join(part);
    assert_eq!((floor.bytes(), budget.used()), (60, 60));
    drop(floor);
    assert_eq!(budget.used(), 0);
}

#[test]
fn what_is_moved_is_never_free_in_between() {
    let budget = Budget::new(100);
    let (mut a, mut b) = (budget.reserve(), budget.reserve());
    a.grow(70).unwrap();
    b.grow(30).unwrap();
    b.move_from(20, &mut a);
    assert_eq!((a.bytes(), b.bytes(), budget.used()), (50, 50, 100));
    // Of what is set aside nothing is moved.
    a.set_aside(40).unwrap();
    b.move_from(20, &mut a);
    assert_eq!((a.bytes(), b.bytes(), budget.used()), (40, 60, 100));
    a.shrink(40);
    assert_eq!(budget.used(), 100);
    let mut c = budget.reserve();
    c.set_aside_from(30, &mut b).unwrap();
    assert_eq!((b.bytes(), c.bytes(), budget.used()), (30, 0, 100));
    c.grow(30).unwrap();
    assert!(c.grow(1).is_err() && c.set_aside_from(61, &mut b).is_err());
    assert_eq!((b.bytes(), budget.used()), (30, 100));
    c.set_aside_from(60, &mut b).unwrap();
    drop((a, c));
    assert_eq!((b.bytes(), budget.used()), (0, 0));
}

#[test]
fn what_is_set_aside_can_be_given_to_another() {
    let budget = Budget::new(100);
    let mut a = budget.reserve();
    a.set_aside(60).unwrap();
    a.grow(50).unwrap();
    assert!(a.split_aside(61).is_err());
    let part = a.split_aside(10).unwrap();
    assert_eq!((a.bytes(), part.bytes(), budget.used()), (50, 10, 60));
    a.shrink(50);
    assert_eq!(budget.used(), 60);
    drop(part);
    assert_eq!(budget.used(), 50);
    a.set_aside(60).unwrap();
    assert_eq!(budget.used(), 60);
    // Of what is reserved beyond that, first.
    a.grow(100).unwrap();
    let part = a.split_aside(30).unwrap();
    assert_eq!((a.bytes(), part.bytes(), budget.used()), (70, 30, 100));
    a.shrink(70);
    assert_eq!(budget.used(), 90);
    a.grow(70).unwrap();
    let more = a.split_aside(40).unwrap();
    assert_eq!((a.bytes(), more.bytes(), budget.used()), (30, 40, 100));
    a.shrink(30);
    assert_eq!(budget.used(), 100);
    drop((a, part, more));
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_refused_growth_changes_nothing() {
    let budget = Budget::new(100);
    let mut a = budget.reserve();
    let mut b = budget.reserve();
    a.grow(60).unwrap();
    assert!(matches!(
        b.grow(41),
        Err(Error::Memory {
            wanted: 41,
            used: 60,
            limit: 100
        })
    ));
    b.grow(40).unwrap();
    drop(a);
    assert_eq!((budget.used(), budget.peak()), (40, 100));
}

#[test]
fn what_a_part_takes_below_its_floor_is_never_refused() {
    let whole = Budget::new(100);
    let part = whole.part(40).unwrap();
    assert_eq!(
        (part.limit(), part.used(), part.free(), whole.free()),
        (100, 0, 100, 60)
    );
    assert!(whole.part(61).is_err());
    let (mut own, mut other) = (part.reserve(), whole.reserve());
    other.grow(60).unwrap();
    assert!(other.grow(1).is_err());
    for _ in 0..2 {
        own.grow(40).unwrap();
        assert!(matches!(
            own.grow(1),
            Err(Error::Memory {
                wanted: 1,
                used: 100,
                limit: 100
            })
        ));
        own.shrink(40);
    }
    // Beyond the floor it is as everybody is.
    other.shrink(30);
    own.grow(70).unwrap();
    assert!(own.grow(1).is_err() && other.grow(1).is_err());
    assert_eq!((part.used(), part.free(), whole.used()), (70, 0, 100));
    own.shrink(20);
    assert_eq!((part.free(), whole.used()), (20, 80));
    own.shrink(20);
    assert_eq!((part.free(), whole.used()), (40, 70));
    drop((own, part));
    assert_eq!((whole.used(), whole.peak()), (30, 100));
}

#[test]
fn floors_change_and_stand_in_each_other() {
    let whole = Budget::new(100);
    let part = whole.part(0).unwrap();
    let mut other = whole.reserve();
    other.grow(40).unwrap();
    part.set_floor(60).unwrap();
    let inner = part.part(40).unwrap();
    let mut a = inner.reserve();
    assert_eq!((inner.free(), part.free(), whole.used()), (60, 20, 100));
    // What the whole has left comes first, then what the part has.
    other.shrink(5);
    a.grow(45).unwrap();
    assert_eq!((part.used(), whole.used()), (40, 100));
    a.grow(20).unwrap();
    assert!(a.grow(1).is_err());
    assert_eq!((part.used(), whole.used()), (60, 100));
    // And that is given back first.
    a.shrink(20);
    assert_eq!((part.used(), whole.used()), (40, 100));
    a.shrink(5);
    assert_eq!((part.used(), whole.used()), (40, 95));
    // A higher floor takes nothing twice, a lower one nothing that is reserved.
    a.grow(15).unwrap();
    assert_eq!((part.used(), whole.used()), (55, 95));
    inner.set_floor(60).unwrap();
    assert!(inner.set_floor(66).is_err());
    assert_eq!((part.used(), whole.used()), (60, 95));
    inner.set_floor(20).unwrap();
    part.set_floor(20).unwrap();
    assert_eq!((part.used(), whole.used()), (55, 90));
    assert!(part.set_floor(66).is_err());
    part.set_floor(65).unwrap();
    assert_eq!(whole.used(), 100);
    part.set_floor(0).unwrap();
    a.shrink(20);
    assert_eq!((part.used(), whole.used()), (35, 70));
    drop((a, inner));
    assert_eq!((part.used(), whole.used()), (0, 35));
    part.set_floor(60).unwrap();
    drop(part);
    assert_eq!(whole.used(), 35);
}

#[test]
fn what_is_set_aside_is_never_refused_again() {
    let budget = Budget::new(100);
    let (mut a, mut b) = (budget.reserve(), budget.reserve());
    a.set_aside(30).unwrap();
    b.grow(70).unwrap();
    assert!(b.grow(1).is_err() && a.set_aside(31).is_err());
    for _ in 0..2 {
        a.grow(10).unwrap();
        a.grow(20).unwrap();
        assert!(a.grow(1).is_err());
        assert_eq!((a.bytes(), budget.used()), (30, 100));
        a.shrink(25);
        assert_eq!((a.bytes(), budget.used()), (5, 100));
        a.shrink(25);
    }
    drop(b);
    a.grow(50).unwrap();
    assert_eq!(budget.used(), 50);
    a.shrink(45);
    assert_eq!(budget.used(), 30);
    drop(a);
    assert_eq!(budget.used(), 0);
}
