"""Person names, world-wide, for the built-in entity matcher and the demo corpus.

The lists favour precision: a name that is also an ordinary word, a place or a brand is either in
`AMBIGUOUS_FIRST_NAMES`, which count only when a surname follows, or in no list at all.
"""


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES: tuple[str, ...] = _names("""
    Aaron Abdul Abigail Adam Adele Adrian Agnes Ahmed Aisha Akira Alan Albert Alejandro Alex
    Alexander Alexandra Alfred Ali Alice Alicia Alison Amanda Amelia Amina Amit Amy Ana Anders
    Andrea Andrew André Andy Angela Anita Anjali Ann Anna Anne Annette Annie Anthony Anton Antonio
    Arjun Arnold Arthur Arturo Ashley Astrid Audrey Barbara Beatrice Ben Benjamin Bernard Beth
    Betty Bjorn Björn Bobby Boris Brad Bradley Brandon Brenda Brian Bridget Bruce Bruno Bryan Caleb
    Camila Carla Carlos Carmen Caroline Catherine Cecilia Celia Charles Charlie Chloe Chloé Chris
    Christina Christine Christopher Claire Clara Claude Claudia Colin Connie Connor Craig Cynthia
    Daniel Daniela Danny Daphne Darren Dave David Deborah Deepak Denise Dennis Derek Diana Diane
    Diego Dmitri Dominic Donald Donna Dorothy Doug Douglas Duncan Dylan Eddie Edgar Edith Eduardo
    Edward Edwin Eileen Elaine Eleanor Elena Elias Elizabeth Ella Ellen Elsa Emil Emily Emma
    Enrique Eric Erik Ernest Esther Ethan Eva Evelyn Fatima Felipe Felix Fernando Fiona Francesca
    Francis Francisco Franz Fred Freddie Frida Gabriel Gareth Gary Geoffrey George Gerald Gerard
    Gina Giovanni Giulia Gloria Gordon Graham Greg Gregory Greta Guillermo Gustav Hannah Hans
    Harold Harriet Hassan Hector Helen Helena Henrik Henry Hiroshi Howard Hugo Ian Ibrahim Ines
    Ingrid Irene Isaac Isabel Isabella Ivan Jacob Jacqueline Jake James Jamie Jan Jane Janet Jason
    Javier Jeff Jeffrey Jennifer Jenny Jeremy Jerome Jessica Jill Jim Jimmy Joan Joanna Joe Joel
    Johan John Jonas Jonathan Jorge Jose Joseph Josephine Joshua José Joyce Juan Judith Julia
    Julian Julie Jürgen Karen Karl Kate Katherine Kathleen Kathy Katie Keith Kelly Kenji Kenneth
    Kevin Kim Kofi Kristin Kumar Kwame Lars Laura Lauren Laurence Leah Lena Leo Leon Leonard Leslie
    Liam Linda Lisa Liz Lois Louis Louise Lucas Lucia Lucy Luis Luke Lydia Magdalena Malcolm Manuel
    Marco Margaret Maria Marie Mario Marion Marta Martha Martin Mary María Matthew Maureen Megan
    Mei Melanie Melissa Michael Michelle Miguel Mike Mikhail Miranda Miriam Mohammed Monica Nadia
    Nancy Naomi Natalie Natasha Nathan Neil Nicholas Nicola Nicole Nigel Nikolai Nina Noah Nora
    Norman Olga Oliver Olivia Omar Pablo Pamela Patricia Patrick Paul Paula Pedro Peter Philip
    Phoebe Pierre Priya Rachel Rahul Rajesh Ralph Ramon Raymond Rebecca René Ricardo Richard Rita
    Robert Roberta Roberto Roger Roland Ronald Rosa Rosie Roy Rupert Russell Ruth Ryan Sally
    Samantha Samir Samuel Sandra Sanjay Sara Sarah Scott Sean Sebastian Sergei Seth Shannon Sharon
    Sheila Shirley Simon Sofia Sofía Sonia Sophie Stanley Stella Stephanie Stephen Steve Steven
    Stuart Sunil Susan Suzanne Sven Sylvia Søren Tamara Tanya Tara Ted Teresa Terry Theodore
    Theresa Thomas Tim Timothy Tina Tobias Todd Tom Tomas Tony Tracy Trevor Ursula Valerie Vanessa
    Vera Veronica Vijay Vincent Vladimir Walter Wanda Wendy William Xavier Yasmin Yolanda Yuki
    Yusuf Yvonne Zoe Zoë
""")

AMBIGUOUS_FIRST_NAMES: tuple[str, ...] = _names("""
    Amber April Art Austin Autumn Barry Basil Beverly Bill Bob Brooke Carol Charity Charlotte Chase
    Chelsea Christian Chuck Clay Cliff Cole Crystal Daisy Dale Dallas Dan Dawn Dean Dick Don Drew
    Earl Eve Faith Fay Florence Frank Gene Georgia Gill Glen Grace Grant Guy Harry Harvey Hazel
    Heath Heather Holly Hope Hunter Iris Ivy Jack Jackson Jade Jasmine Jay Jean Jerry Jesse Jordan
    Josh Joy Juliet June Ken Lance Larry Laurel Lee Lily Lincoln Lionel Mark Marshall Mason Matt
    Max May Melody Miles Nick Norm Oscar Pat Pearl Penny Pierce Ray Reed Rich Rob Robin Rod Ron
    Rose Ruby Sam Sandy Savannah Spencer Sue Summer Sydney Taylor Tiffany Victor Victoria Violet
    Virginia Wade Warren Wayne Will Woody
""")

# Those so common as words that even a capital after them says little ("Summer Term", "May
# Contain"): a listed surname must follow.
WORD_FIRST_NAMES: tuple[str, ...] = _names("""
    Amber April Art Autumn Basil Charity Chase Christian Cliff Crystal Daisy Dawn Dean Drew Earl
    Eve Faith Georgia Grace Grant Hazel Heath Heather Holly Hope Hunter Iris Ivy Jade Jasmine Joy
    June Lance Laurel Lily Lincoln Mark Mason May Melody Miles Norm Pat Pearl Penny Pierce Reed
    Rich Rose Ruby Sandy Savannah Summer Tiffany Victoria Violet Virginia Wade Warren Will
""")

SURNAMES: tuple[str, ...] = _names("""
    Abbott Adams Adeyemi Aguilar Ahmed Alexander Ali Allen Alvarez Anderson Andersson Armstrong
    Bailey Baker Baldwin Banerjee Barnes Barrett Bauer Becker Bell Bennett Berg Bergman Bianchi
    Biden Black Bond Boyd Bradley Braun Brennan Brooks Brown Bryant Burke Burns Butler Byrne
    Cameron Campbell Carlson Carpenter Carr Carroll Carter Castillo Castro Chan Chandra Chang
    Chapman Chavez Chen Choi Chopra Christensen Chung Clark Clinton Cohen Coleman Collins Conti
    Cooper Costa Cox Crawford Cruz Cunningham Daniels Das Davidson Davies Davis Diaz Dixon Dubois
    Duncan Dupont Edwards Ellis Eriksson Espinoza Evans Farrell Fernandez Ferrari Fischer Fisher
    Fitzgerald Fleming Flores Foster Fournier Fox Franklin Fraser Freeman Fuentes Fujita Gallagher
    Garcia Gardner Garner Gibson Gill Goldberg Gomez Gonzalez Gordon Graham Gray Green Greene
    Griffin Gupta Gutierrez Hall Hamilton Hansen Hanson Hardy Harper Harris Harrison Hart Hassan
    Hayes Henderson Hernandez Herrera Hill Hoffman Holmes Howard Huang Hudson Hughes Hussein
    Ibrahim Ivanov Jackson Jacobs Jansen Jenkins Jensen Jimenez Johansson Johnson Johnston Jones
    Joshi Kapoor Kaufman Keller Kelley Kelly Kennedy Khan Kim King Klein Knight Kobayashi Kovacs
    Kowalski Kumar Lambert Larsen Larson Laurent Lawrence Lawson Lee Lefebvre Leung Lewis Lin
    Lindberg Liu Lloyd Long Lopez Lynch MacDonald Mancini Marino Marshall Martin Martinez Mason
    Matthews Mazur McCarthy McDonald McKenzie Medina Mehta Mendez Mendoza Menon Meyer Miller
    Mitchell Molina Montgomery Moore Morales Moreau Moreno Morgan Morris Morrison Mueller Mukherjee
    Murphy Murray Myers Nair Nakamura Nelson Newman Nguyen Nielsen Novak Obama Oliveira Olsen Olson
    Ortega Ortiz Osborne Owens Palmer Parker Patel Patterson Pereira Perez Perkins Perry
    Peters Petersen Peterson Petrov Phillips Porter Powell Price Quinn Ramirez Ramos Rao Reddy Reed
    Reid Reyes Reynolds Ricci Richards Richardson Riley Rivera Roberts Robertson Robinson Rodriguez
    Rogers Romano Romero Rosenberg Ross Rossi Rousseau Ruiz Russell Russo Ryan Saito Salazar
    Sanchez Sanders Santos Sato Schmidt Schneider Schultz Schwartz Shah Sharma Shaw Silva Simmons
    Simpson Singh Smith Sokolov Spencer Stevens Stewart Stone Sullivan Suzuki Svensson Takahashi
    Tanaka Taylor Thompson Thomson Torres Tran Trump Tucker Turner Vargas Vasquez Vega Volkov
    Wagner Walker Wallace Walsh Wang Ward Warren Washington Watanabe Watson Weaver Webb Weber Weiss
    Wells West White Wilkinson Williams Williamson Wilson Winkler Wolf Wong Wood Woods Wright Wu
    Yamamoto Yang Young Zhang Zhou Zimmerman
""")

# Surnames that are ordinary words as well: too weak beside an ambiguous first name in lower case
# ("will young people", "bill long").
WORD_SURNAMES: tuple[str, ...] = _names("""
    Abbott Baker Bell Black Bond Brooks Brown Burns Butler Carpenter Carr Chapman Cooper Cox Fisher
    Foster Fox Freeman Gardner Gill Gray Green Griffin Hall Hardy Hart Hill King Knight Long
    Marshall Mason Parker Porter Price Reed Stone Trump Tucker Turner Walker Ward Warren
    Weaver Wells West White Wolf Wood Woods Young
""")

# Capitalised words that follow a first name without being its surname: the start of a sentence
# after a missing full stop, a street, a title, a business.
NOT_SURNAMES: tuple[str, ...] = _names("""
    A About Academy Administration After Also Although Am America American An And Are Army As At
    Avenger Avenue Award Awards Bakery Band Bar Bay Beach Because Been Beer Before Being Bistro
    Blvd Boy Boys Bridge Brothers But By Cafe Came Can Canada Canadian Canyon Center Centre Chapel
    Christmas Church City Cleaners Club Co Coast Coffee College Company Corp Could County Court
    Creek Crime Dad Day Deli Democrat Democrats Did Diner Do Does Dr Drive Early Energy Even
    Excellent Festival Film For Foundation From Furniture Gate Gets Go Got Government Great Grill
    Group Had Has Have He Her High Hills His Hollywood Hood Hospital Hotel House Houses How However
    Hwy I If In Inc Inn Into Is Island It Its Just Lake Lane Library Life Like Made Makes Manager
    March Market May Memorial Met Mom Monday Mountain Mountains Movie Mr Mrs Ms Museum My Nation
    Night No Not Now Of Oh On Only Or Oscar Our Palace Park Pizza Place Plaza Please Point Presents
    President Presidential Principle Prize Program Pub Quay Ranch Report Republican Republicans
    Restaurant Right River Road Rule Said Salon Saturday Sauce Saw Says School Senator She Should
    So Some Sometimes Spa Square St Station Store Story Street Sunday Tells Term Than Thank Thanks
    That The Theater Theatre Their Then There These They This Those Though To Too Tower Trust
    Tuesday University Very Was Way We Were What When Where Which While Who Why Will With World
    Would Yeah Yes You Your Zone
""")
