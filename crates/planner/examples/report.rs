//! Prints the page on Ascend beside others.

fn main() -> Result<(), cachalot_planner::Error> {
    let catalogue = cachalot_planner::catalogue::Catalogue::built_in();
    print!("{}", cachalot_planner::report::can_ascend_match(&catalogue)?);
    Ok(())
}
