//! What a configuration's text may say.

use super::*;

const TEXT: &str = include_str!("../../configs/synthetic.toml");

#[test]
fn settings_replace_what_the_file_says() {
    let settings =
        ["steps=7", "warmup_steps=3", "name=other", "synthetic_size=[64, 96]"].map(str::to_owned);
    let config = Config::parse(TEXT, &settings).unwrap();
    assert_eq!((config.steps, config.name.as_str(), config.synthetic_size), (7, "other", [64, 96]));
}

#[test]
fn mistakes_are_named() {
    for (setting, says) in [
        ("stepz=3", "stepz"),
        ("batch=1", "`batch` is 1"),
        ("crop=8", "`crop` is 8"),
        ("learning_rate=-1", "`learning_rate` is -1"),
        ("data=camvid", "`labeled`"),
        ("network=alexnet", "alexnet"),
        ("window={size=769, stride=512}", "768"),
        ("steps", "key=value"),
    ] {
        let error = Config::parse(TEXT, &[setting.to_owned()]).unwrap_err();
        assert!(format!("{error:#}").contains(says), "{setting}: {error:#}");
    }
}

#[test]
fn every_configuration_in_the_folder_is_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        Config::read(&path, &["root=somewhere".to_owned()])
            .unwrap_or_else(|error| panic!("{error:#}"));
    }
}
