//! Tests of which certificates of a server are looked at.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::{OTHERS_MAX, first_of_each};

/// A certificate of this name, with a key of its own.
fn named(name: &str) -> CertificateDer<'static> {
    let mut params = CertificateParams::new([]).expect("no names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    params.self_signed(&key).expect("a certificate").der().clone()
}

#[test]
fn the_first_of_each_name_is_looked_at() {
    let names = ["a", "b", "a", "a", "c", "b"].map(named);
    let first = first_of_each(&names).expect("few enough");
    assert_eq!(first, [names[0].clone(), names[1].clone(), names[4].clone()]);
}

#[test]
fn what_cannot_be_read_is_left_out() {
    let odd = [CertificateDer::from(vec![0x30, 0]), named("a"), CertificateDer::from(Vec::new())];
    assert_eq!(first_of_each(&odd).expect("few enough"), [odd[1].clone()]);
}

#[test]
fn there_are_no_more_than_a_chain_has() {
    let many: Vec<_> = (0..=OTHERS_MAX).map(|number| named(&number.to_string())).collect();
    assert!(first_of_each(&many).is_err());
    assert_eq!(first_of_each(&many[1..]).expect("few enough").len(), OTHERS_MAX);
}
