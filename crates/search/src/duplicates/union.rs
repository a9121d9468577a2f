//! Sets that grow together (union by rank, path halving).

use std::collections::HashMap;

use clipmesh_proto::ids::ItemId;

/// Which items belong together. Only those are held that belong to another.
#[derive(Debug, Default)]
pub(super) struct Union {
    places: HashMap<ItemId, usize>,
    parents: Vec<usize>,
    ranks: Vec<u8>,
}

impl Union {
    /// Puts two items, with all that belongs to them, into one set.
    pub(super) fn join(&mut self, a: &ItemId, b: &ItemId) {
        let (a, b) = (self.place(a), self.place(b));
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return;
        }
        let (low, high) = if self.ranks[a] < self.ranks[b] { (a, b) } else { (b, a) };
        if self.ranks[low] == self.ranks[high] {
            self.ranks[high] += 1;
        }
        self.parents[low] = high;
    }

    /// The sets, the largest first, equally large ones in order of their first item; each in order
    /// of id.
    pub(super) fn into_groups(mut self) -> Vec<Vec<ItemId>> {
        let places = std::mem::take(&mut self.places);
        let mut groups: HashMap<usize, Vec<ItemId>> = HashMap::new();
        for (id, place) in places {
            let root = self.root(place);
            groups.entry(root).or_default().push(id);
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        for group in &mut groups {
            group.sort();
        }
        groups.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.first().cmp(&b.first())));
        groups
    }

    fn place(&mut self, id: &ItemId) -> usize {
        if let Some(place) = self.places.get(id) {
            return *place;
        }
        let place = self.parents.len();
        self.places.insert(id.clone(), place);
        self.parents.push(place);
        self.ranks.push(0);
        place
    }

    fn root(&mut self, mut place: usize) -> usize {
        while self.parents[place] != place {
            let grandparent = self.parents[self.parents[place]];
            self.parents[place] = grandparent;
            place = grandparent;
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn id(number: u8) -> ItemId {
        format!("{number:03}").try_into().expect("an id")
    }

    fn groups(pairs: &[(u8, u8)]) -> Vec<Vec<ItemId>> {
        let mut union = Union::default();
        for (a, b) in pairs {
            union.join(&id(*a), &id(*b));
        }
        union.into_groups()
    }

    #[test]
    fn what_is_joined_by_a_chain_is_one_group() {
        let expected = [vec![id(1), id(2), id(3), id(4)], vec![id(5), id(9)], vec![id(7), id(8)]];
        assert_eq!(groups(&[(9, 5), (3, 4), (1, 2), (7, 8), (4, 2), (1, 3)]), expected);
        assert_eq!(groups(&[]), [[]; 0], "nothing of nothing");
    }

    proptest! {
        #[test]
        fn is_what_spreading_from_one_to_the_next_gives(
            pairs in prop::collection::vec((0u8..40, 0u8..40), 0..60),
        ) {
            let mut left: BTreeSet<u8> = pairs.iter().flat_map(|(a, b)| [*a, *b]).collect();
            let mut expected: Vec<Vec<ItemId>> = Vec::new();
            while let Some(first) = left.pop_first() {
                let mut group = BTreeSet::from([first]);
                loop {
                    let reached = pairs.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]);
                    let next: BTreeSet<u8> =
                        reached.filter(|(a, _)| group.contains(a)).map(|(_, b)| b).collect();
                    let before = group.len();
                    group.extend(next);
                    if group.len() == before {
                        break;
                    }
                }
                left.retain(|member| !group.contains(member));
                expected.push(group.into_iter().map(id).collect());
            }
            expected.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a[0].cmp(&b[0])));
            prop_assert_eq!(groups(&pairs), expected);
        }
    }
}
