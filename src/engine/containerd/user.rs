//! The user of an exec: a number, or a name in the container's own files. Whatever is wrong there is an error; nobody
//! becomes root by it.

/// The kernel's limit of additional groups is higher; nobody needs so many.
const MOST_GROUPS: usize = 1024;
/// The kernel takes the one above for none.
const HIGHEST_ID: u32 = u32::MAX - 1;

/// As a request names it: `USER` or `USER:GROUP`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    user: Part,
    group: Option<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Number(u32),
    Name(String),
}

/// As the runtime takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    /// `None`: the container's.
    pub gid: Option<u32>,
    /// Besides those of the container.
    pub groups: Vec<u32>,
}

impl User {
    pub fn parse(text: &str) -> Result<Self, String> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        Ok(Self { user: part(user)?, group: group.map(part).transpose()? })
    }

    /// Who it is, if no file is needed for that.
    pub fn known(&self) -> Option<Identity> {
        match (&self.user, &self.group) {
            (Part::Number(uid), None) => Some(Identity { uid: *uid, gid: None, groups: Vec::new() }),
            (Part::Number(uid), Some(Part::Number(gid))) => {
                Some(Identity { uid: *uid, gid: Some(*gid), groups: Vec::new() })
            }
            (Part::Name(_), _) | (_, Some(Part::Name(_))) => None,
        }
    }

    /// Who it is, by the contents of `/etc/passwd` and `/etc/group`. `None`: there is no such file.
    pub fn resolve(&self, passwd: Option<&[u8]>, group: Option<&[u8]>) -> Result<Identity, String> {
        let (uid, own_group, name) = match &self.user {
            Part::Number(uid) => (*uid, None, None),
            Part::Name(name) => {
                let line = lines(passwd).find(|line| line.first() == Some(&name.as_str()));
                let line =
                    line.ok_or_else(|| format!("unable to find user {name}: no matching entries in passwd file"))?;
                let id = |field: usize| {
                    let id = line.get(field).copied().and_then(number);
                    id.ok_or_else(|| format!("the entry of user {name} in the container's /etc/passwd is not valid"))
                };
                (id(2)?, Some(id(3)?), Some(name))
            }
        };
        match (&self.group, name) {
            (Some(Part::Number(gid)), _) => Ok(Identity { uid, gid: Some(*gid), groups: Vec::new() }),
            (Some(Part::Name(wanted)), _) => {
                let line = lines(group).find(|line| line.first() == Some(&wanted.as_str()));
                let line =
                    line.ok_or_else(|| format!("unable to find group {wanted}: no matching entries in group file"))?;
                let gid = line.get(2).copied().and_then(number);
                let gid = gid
                    .ok_or_else(|| format!("the entry of group {wanted} in the container's /etc/group is not valid"))?;
                Ok(Identity { uid, gid: Some(gid), groups: Vec::new() })
            }
            (None, None) => Ok(Identity { uid, gid: None, groups: Vec::new() }),
            (None, Some(name)) => Ok(Identity { uid, gid: own_group, groups: groups_of(name, group)? }),
        }
    }
}

/// The groups that name this user as a member. An entry that is not valid is nobody's.
fn groups_of(name: &str, group: Option<&[u8]>) -> Result<Vec<u32>, String> {
    let mut groups = Vec::new();
    for line in lines(group) {
        let is_member = line.get(3).is_some_and(|members| members.split(',').any(|member| member == name));
        if let Some(gid) = line.get(2).copied().and_then(number).filter(|gid| is_member && !groups.contains(gid)) {
            groups.push(gid);
        }
        if groups.len() > MOST_GROUPS {
            return Err(format!("user {name} is in more than {MOST_GROUPS} groups of the container"));
        }
    }
    Ok(groups)
}

/// The fields of each line that is text.
fn lines(file: Option<&[u8]>) -> impl Iterator<Item = Vec<&str>> {
    let lines = file.unwrap_or_default().split(|byte| *byte == b'\n');
    lines.filter_map(|line| std::str::from_utf8(line).ok()).map(|line| line.trim_end_matches('\r').split(':').collect())
}

fn part(text: &str) -> Result<Part, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match number(text) {
        Some(number) => Ok(Part::Number(number)),
        None if is_number => Err(format!("{text} is no number of a user or group: at most {HIGHEST_ID}")),
        None if text.is_empty() => Err("the name of a user or group is empty".to_owned()),
        None => Ok(Part::Name(text.to_owned())),
    }
}

/// Digits alone.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number <= HIGHEST_ID)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:1001:app:/home/app:/bin/sh\r\n\
        app:x:0:0::/:/bin/sh\nzero:x::0\nplus:x:+0:0\nhex:x:0x0:0\nminus:x:-1:0\nlast:x:4294967295:0\n\
        \xff\xfe:x:0:0\nnogroup:x:7\n99999999999:x:0:0\n:x:0:0\n";
    const GROUP: &[u8] =
        b"root:x:0:\napp:x:1001:other\nwheel:x:10:root,app\nwheel2:x:10:app\nbad:x::app\nmore:x:11:app,\n\
        near:x:12:apps\n";

    fn resolve(text: &str) -> Result<Identity, String> {
        let user = User::parse(text)?;
        user.known().map_or_else(|| user.resolve(Some(PASSWD), Some(GROUP)), Ok)
    }

    fn identity(uid: u32, gid: Option<u32>, groups: &[u32]) -> Identity {
        Identity { uid, gid, groups: groups.to_vec() }
    }

    #[test]
    fn users_and_groups_are_found_by_name_and_numbers_need_no_file() {
        for (text, expected) in [
            ("root", identity(0, Some(0), &[10])),
            ("app", identity(1000, Some(1001), &[10, 11])),
            ("app:wheel", identity(1000, Some(10), &[])),
            ("app:5", identity(1000, Some(5), &[])),
            ("5", identity(5, None, &[])),
            ("5:6", identity(5, Some(6), &[])),
            ("5:app", identity(5, Some(1001), &[])),
            ("0", identity(0, None, &[])),
        ] {
            assert_eq!(resolve(text), Ok(expected), "{text}");
        }
        assert!(User::parse("5:6").expect("a user").known().is_some());
        assert!(User::parse("app:6").expect("a user").known().is_none());
    }

    #[test]
    fn what_is_not_there_or_not_valid_is_an_error_and_never_root() {
        for text in [
            "",
            ":",
            "app:",
            ":app",
            "nobody",
            "app:nobody",
            "broken",
            "zero",
            "plus",
            "hex",
            "minus",
            "last",
            "nogroup",
            "app:bad",
            "4294967295",
            "99999999999",
            "5:99999999999",
            "app:wheel:x",
        ] {
            assert!(resolve(text).is_err(), "{text}: {:?}", resolve(text));
        }
        let user = User::parse("app").expect("a user");
        assert!(user.resolve(None, None).is_err_and(|error| error.contains("unable to find user app")));
        assert_eq!(user.resolve(Some(PASSWD), None), Ok(identity(1000, Some(1001), &[])));
    }

    #[test]
    fn a_user_in_too_many_groups_is_refused() {
        let line = |n| format!("g{n}:x:{}:app", n + 5000);
        let groups = (0..=MOST_GROUPS).map(line).collect::<Vec<_>>().join("\n");
        assert!(User::parse("app").expect("a user").resolve(Some(PASSWD), Some(groups.as_bytes())).is_err());
    }

    proptest! {
        /// Whatever is in the files, who asks for a name gets the number of the first line that is that name's.
        #[test]
        fn no_file_makes_root_of_anybody(passwd in proptest::collection::vec(any::<u8>(), 0..300), group in any::<Vec<u8>>()) {
            let user = User::parse("somebody").expect("a user");
            prop_assume!(!passwd.windows(9).any(|bytes| bytes == b"somebody:"));
            prop_assert!(user.resolve(Some(&passwd), Some(&group)).is_err());
        }
    }
}
