//! Packing: whole documents into as few micro batches of bounded size as a simple rule manages.
//!
//! A micro batch begins with the longest document left and takes those others that fill it best. This is a subset sum,
//! solved exactly: among documents of many lengths an exact fit is soon found, so that all micro batches but the last
//! are full to within two percent (a rule that only ever places one document leaves three percent empty where a micro
//! batch holds six).

use std::cmp::Reverse;

/// Groups documents, by their places in `lengths`, so that no group is longer than `most`; a longer document gets a
/// group of its own. Groups stand in the order in which they were filled, places inside a group in ascending order.
pub(super) fn pack(lengths: &[usize], most: usize) -> Vec<Vec<usize>> {
    let mut left: Vec<usize> = (0..lengths.len()).collect();
    left.sort_by_key(|&place| Reverse(lengths[place]));
    let mut groups = Vec::new();
    let mut num_left: usize = lengths.iter().sum();
    while !left.is_empty() {
        let mut group = if num_left <= most { left.clone() } else { fill(&left, lengths, most) };
        group.sort_unstable();
        num_left -= group.iter().map(|&place| lengths[place]).sum::<usize>();
        left.retain(|place| group.binary_search(place).is_err());
        groups.push(group);
    }
    groups
}

/// The first of the documents `left`, and those others that with it come nearest to `most` from below.
///
/// O(documents * most), but it ends at the first exact fit.
fn fill(left: &[usize], lengths: &[usize], most: usize) -> Vec<usize> {
    let (Some(&first), others) = (left.first(), left.get(1..).unwrap_or_default()) else { return Vec::new() };
    let room = most.saturating_sub(lengths[first]);
    // The document that was the last one needed for each sum. Documents needed for what is missing to a sum came
    // before it, so that none is taken twice.
    let mut last: Vec<Option<usize>> = vec![None; room + 1];
    let mut largest = 0;
    for &place in others {
        let length = lengths[place];
        if largest == room {
            break;
        }
        // From above, so that this document is not yet among those that made the smaller sums.
        for sum in (length..=room.min(largest + length)).rev() {
            if last[sum].is_none() && (sum == length || last[sum - length].is_some()) {
                last[sum] = Some(place);
                largest = largest.max(sum);
            }
        }
    }
    let mut group = vec![first];
    while let Some(place) = last[largest].filter(|_| largest > 0) {
        group.push(place);
        largest -= lengths[place];
    }
    group
}

#[cfg(test)]
mod tests {
    use super::super::testing::Rng;
    use super::*;

    fn sizes(lengths: &[usize], most: usize) -> Vec<usize> {
        let groups = pack(lengths, most);
        let mut places = groups.concat();
        places.sort_unstable();
        assert!(places.into_iter().eq(0..lengths.len()), "every document once");
        assert!(groups.iter().all(|group| !group.is_empty() && group.is_sorted()));
        assert_eq!(groups, pack(lengths, most), "the same every time");
        groups.iter().map(|group| group.iter().map(|&place| lengths[place]).sum()).collect()
    }

    #[test]
    fn small_cases() {
        assert_eq!(pack(&[], 10), Vec::<Vec<usize>>::new());
        assert_eq!(pack(&[3, 7, 5, 5, 2], 10), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(pack(&[12, 3], 10), [vec![0], vec![1]], "a document that is too long is alone");
    }

    /// Over random lengths: nothing is too large, and no two groups would fit into one.
    #[test]
    fn groups_are_bounded_and_cannot_be_joined() {
        let mut rng = Rng(1);
        for _ in 0..500 {
            let most = 1 + rng.below(600);
            let longest = 1 + rng.below(most);
            let lengths: Vec<usize> = (0..rng.below(200)).map(|_| 1 + rng.below(longest)).collect();
            let mut sizes = sizes(&lengths, most);
            sizes.sort_unstable();
            assert!(sizes.last().is_none_or(|&size| size <= most));
            assert!(sizes.len() < 2 || sizes[0] + sizes[1] > most);
        }
    }

    /// Documents of many lengths up to a quarter of a micro batch leave at most two percent empty, the emptiest aside.
    #[test]
    fn micro_batches_are_full() {
        let mut rng = Rng(2);
        for _ in 0..300 {
            let most = 512 + rng.below(4096);
            let shortest = 1 + rng.below(most / 8);
            let longest = shortest + most / 8;
            let num_documents = 12 * most / shortest.midpoint(longest);
            let lengths: Vec<usize> =
                (0..num_documents).map(|_| shortest + rng.below(longest - shortest + 1)).collect();
            let mut sizes = sizes(&lengths, most);
            sizes.sort_unstable();
            let full: usize = sizes[1..].iter().sum();
            let share = full as f64 / ((sizes.len() - 1) * most) as f64;
            assert!(
                share >= 0.98,
                "{share} of {} micro batches of {most}, lengths {shortest} to {longest}",
                sizes.len()
            );
        }
    }
}
