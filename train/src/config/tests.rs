use super::options::{FeatureSource, PointSampling, PrototypeAverage};
use super::*;

const TEXT: &str = include_str!("../../configs/synthetic.toml");

fn parse(settings: &[&str]) -> Result<Config> {
    Config::parse(TEXT, &settings.iter().map(|setting| (*setting).to_owned()).collect::<Vec<_>>())
}

#[test]
fn settings_override_the_file() {
    let config =
        parse(&["steps=7", "warmup_steps=3", "name=other", "synthetic_size=[64, 96]"]).unwrap();
    assert_eq!((config.steps, config.name.as_str(), config.synthetic_size), (7, "other", [64, 96]));
}

#[test]
fn a_window_is_given_as_export_takes_it_and_a_key_is_taken_away_without_a_value() {
    let table = parse(&["window={size=512, stride=384}"]).unwrap();
    assert_eq!(parse(&["window=512:384"]).unwrap(), table);
    assert_eq!(parse(&["window=\"512:384\""]).unwrap(), table);
    for none in ["window=", "window=whole", "window= "] {
        assert_eq!(parse(&[none]).unwrap().window, None, "{none}");
    }
    assert_eq!(parse(&["seed=5", "seed="]).unwrap().seed, Config::default().seed);
    for (setting, message) in [
        ("window=512", "`window` is 512"),
        ("window=a:b", "SIZE:STRIDE"),
        ("name=", "`name` is missing"),
        ("stepz=", "no key `stepz`"),
    ] {
        let error = format!("{:#}", parse(&[setting]).unwrap_err());
        assert!(error.contains(message), "{setting}: {error}");
    }
}

#[test]
fn images_are_read_by_the_keys_and_as_files_say_without_them() {
    assert!(parse(&[]).unwrap().reading().is_default());
    let config = parse(&["channels=4,3,2", "range=0:4080"]).unwrap();
    assert_eq!(config.reading().to_string(), "--channels 4,3,2 --range 0:4080");
    let written = toml::to_string(&config).unwrap();
    assert_eq!(Config::parse(&written, &[]).unwrap().reading(), config.reading());
}

#[test]
fn mistakes_are_named() {
    for (setting, message) in [
        ("stepz=3", "stepz"),
        ("batch=1", "`batch` is 1"),
        ("crop=8", "`crop` is 8; it must be between 32 and 4096"),
        ("learning_rate=-1", "`learning_rate` is -1"),
        ("learning_rate=nan", "`learning_rate` is NaN"),
        ("learning_rate_for=0", "`learning_rate_for` is 0; it must be at least 1"),
        ("prototype_gate=2", "`prototype_gate` is 2"),
        ("log_every=0", "`log_every` is 0"),
        ("synthetic_unlabeled=1000001", "`synthetic_unlabeled` is 1000001"),
        ("point_cells=500", "`point_cells` is 500; it must be at most `crop`"),
        ("data=camvid", "`labeled`"),
        ("network=alexnet", "alexnet"),
        ("window={size=769, stride=512}", "768"),
        ("scale=[2.0, 0.5]", "`scale` is [2, 0.5]"),
        ("scale=[0.0, 1.0]", "`scale`"),
        ("scale=0.5", "scale"),
        ("hue=0.6", "`hue` is 0.6; it must be between 0 and 0.5"),
        ("flip_pairs=[[\"a\", \"b\"], [\"b\", \"c\"]]", "`flip_pairs` names `b` twice"),
        ("channels=1,2", "three channels such as 3,2,1"),
        ("range=9:1", "LOW below HIGH"),
        ("steps", "key=value"),
    ] {
        let error = parse(&[setting]).unwrap_err();
        assert!(format!("{error:#}").contains(message), "{setting}: {error:#}");
    }
}

#[test]
fn pairs_that_nothing_mirrors_are_refused() {
    let pairs = "flip_pairs=[[\"left\", \"right\"]]";
    assert_eq!(parse(&[pairs]).unwrap().flip_pairs, [["left", "right"].map(str::to_owned)]);
    let error = parse(&[pairs, "flip=false"]).unwrap_err().to_string();
    assert!(error.contains("`flip_pairs` has no effect"), "{error}");
}

#[test]
fn keys_without_a_default_are_required() {
    for required in REQUIRED {
        let mut table: toml::Table = TEXT.parse().unwrap();
        table.remove(required).unwrap();
        let error = Config::parse(&table.to_string(), &[]).unwrap_err();
        assert!(error.to_string().starts_with(&format!("`{required}` is missing")), "{error}");
    }
}

#[test]
fn old_names_are_accepted_in_files_settings_and_saved_states() {
    let values = ["true", "3", "0.25", "7", "2", "5"];
    for ((old, current), value) in RENAMED.into_iter().zip(values) {
        let expected = parse(&[&format!("{current}={value}")]).unwrap();
        assert_ne!(expected, parse(&[]).unwrap(), "{current}");
        assert_eq!(parse(&[&format!("{old}={value}")]).unwrap(), expected, "{old}");
        let mut file: toml::Table = TEXT.parse().unwrap();
        file.remove(current);
        file.insert(old.to_owned(), value.parse().unwrap());
        assert_eq!(Config::parse(&file.to_string(), &[]).unwrap(), expected, "{old}");
        file.insert(current.to_owned(), value.parse().unwrap());
        let error = Config::parse(&file.to_string(), &[]).unwrap_err().to_string();
        assert!(error.contains(old) && error.contains(current), "{error}");
        let mut state = serde_json::to_value(&expected).unwrap();
        let saved = state.as_object_mut().unwrap().remove(current).unwrap();
        state[old] = saved;
        assert_eq!(serde_json::from_value::<Config>(state).unwrap(), expected, "{old}");
    }
    let values = ["points=per-picture", "average=normalised", "features=centred"]; // old names
    let config = parse(&values).unwrap();
    assert_eq!(
        (config.points, config.average, config.features),
        (PointSampling::PerImage, PrototypeAverage::Normalized, FeatureSource::Centered)
    );
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

#[test]
fn weights_are_beside_the_configuration_or_in_the_current_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    let write = |weights: &str| {
        let mut table: toml::Table = TEXT.parse().unwrap();
        table.insert("pretrained".to_owned(), weights.into());
        std::fs::write(&path, table.to_string()).unwrap();
    };
    write("w.pth");
    let read = |settings: &[&str]| {
        let settings: Vec<String> = settings.iter().map(|&text| text.to_owned()).collect();
        Config::read(&path, &settings).unwrap().pretrained.unwrap()
    };
    assert_eq!(read(&[]), Path::new("w.pth"));
    std::fs::write(folder.path().join("w.pth"), "").unwrap();
    assert_eq!(read(&[]), folder.path().join("w.pth"));
    assert_eq!(read(&["pretrained=w.pth"]), Path::new("w.pth"));
    // A file of the package's folder, where tests run.
    write("Cargo.toml");
    assert_eq!(read(&[]), Path::new("Cargo.toml"));
}
