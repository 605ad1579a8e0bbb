fn main() {
    let crd = execlet::api::crd::exec_request().unwrap();
    print!("{}", serde_yaml_ng::to_string(&crd).unwrap());
}
